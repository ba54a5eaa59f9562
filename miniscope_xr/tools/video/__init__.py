"""Video files of a recording, with the time stamps beside them."""

from miniscope_xr.tools.video.write import dataset_to_video, recording_to_video, time_stamps_path, write_video

__all__ = ["dataset_to_video", "recording_to_video", "time_stamps_path", "write_video"]
