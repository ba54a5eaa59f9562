/* python.exe: hands the command line to pythonNN.dll, which lies beside it. */
#include <windows.h>
#include <stdio.h>
int wmain(int argc, wchar_t **argv)
{
    HMODULE python = LoadLibraryW(PYTHON_DLL);
    int (*run)(int, wchar_t **) = python ? (void *)GetProcAddress(python, "Py_Main") : NULL;
    if (!run) { fprintf(stderr, "cannot load " PYTHON_DLL_A ": error %lu\n", GetLastError()); return 3; }
    return run(argc, argv);
}
