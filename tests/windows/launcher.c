/* python.exe: hands the command line to pythonNN.dll, which lies beside it. Where MINISCOPE_XR_DISKS names card readers
 * to simulate, disks.dll is loaded first. */
#include <windows.h>
#include <stdio.h>
int wmain(int argc, wchar_t **argv)
{
    if (GetEnvironmentVariableW(L"MINISCOPE_XR_DISKS", NULL, 0) && !LoadLibraryW(L"disks.dll")) {
        fprintf(stderr, "cannot load disks.dll: error %lu\n", GetLastError());
        return 3;
    }
    HMODULE python = LoadLibraryW(PYTHON_DLL);
    int (*run)(int, wchar_t **) = python ? (void *)GetProcAddress(python, "Py_Main") : NULL;
    if (!run) { fprintf(stderr, "cannot load " PYTHON_DLL_A ": error %lu\n", GetLastError()); return 3; }
    return run(argc, argv);
}
