"""Prepare, change, wipe, back up, restore, test and copy cards, without ever hurting anything else.

``settings`` and ``sector`` say what to write, ``disks`` and ``refuse`` where it may go, ``target`` how a byte
gets there, ``operation`` in which order, and ``journal`` what to do when it was interrupted.
"""
