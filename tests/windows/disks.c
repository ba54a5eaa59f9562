/* Card readers for a Python under Wine, below everything that runs in it: Python, ctypes and the C runtime call
 * kernel32, whose own table of imports is changed to come here first. A disk is a file (or a loop device).
 *
 * What Windows does is from Microsoft's documentation of CreateFile (physical disks and volumes), WriteFile, ReadFile,
 * DeviceIoControl, IOCTL_STORAGE_CHECK_VERIFY, FSCTL_LOCK_VOLUME, FSCTL_DISMOUNT_VOLUME, IOCTL_DISK_GET_LENGTH_INFO,
 * IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS and FindFirstVolume. What is no disk or volume of ours goes to Wine untouched. */
#include "disks.h"
#include <ctype.h>
#include <stdlib.h>
#include <wctype.h>

#ifndef FVE_E_LOCKED_VOLUME
#define FVE_E_LOCKED_VOLUME 0x80310000L
#endif

typedef struct { HANDLE handle, lock; int disk; char volume[80]; BOOL locked, dismounted, uses; long long size; } Opened;
typedef struct { int next; BOOL used; } Search;

static CRITICAL_SECTION guard;
static Opened opened[128];
static Search searches[8];
static WCHAR state[520];

static HANDLE (WINAPI *real_CreateFileW)(LPCWSTR, DWORD, DWORD, LPSECURITY_ATTRIBUTES, DWORD, DWORD, HANDLE);
static BOOL (WINAPI *real_ReadFile)(HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED);
static BOOL (WINAPI *real_WriteFile)(HANDLE, LPCVOID, DWORD, LPDWORD, LPOVERLAPPED);
static BOOL (WINAPI *real_DeviceIoControl)(HANDLE, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPOVERLAPPED);
static BOOL (WINAPI *real_CloseHandle)(HANDLE);
static BOOL (WINAPI *real_FlushFileBuffers)(HANDLE);
static BOOL (WINAPI *real_GetFileSizeEx)(HANDLE, PLARGE_INTEGER);
static BOOL (WINAPI *real_GetFileInformationByHandle)(HANDLE, LPBY_HANDLE_FILE_INFORMATION);
static BOOL (WINAPI *real_SetFilePointerEx)(HANDLE, LARGE_INTEGER, PLARGE_INTEGER, DWORD);
static DWORD (WINAPI *real_SetFilePointer)(HANDLE, LONG, PLONG, DWORD);
static HANDLE (WINAPI *real_FindFirstVolumeW)(LPWSTR, DWORD);
static BOOL (WINAPI *real_FindNextVolumeW)(HANDLE, LPWSTR, DWORD);
static BOOL (WINAPI *real_FindVolumeClose)(HANDLE);
static BOOL (WINAPI *real_GetVolumePathNamesForVolumeNameW)(LPCWSTR, LPWSTR, DWORD, PDWORD);

static BOOL fails(DWORD error) { SetLastError(error); return FALSE; }

static void look(Computer *c)
{
    static char text[32768];
    DWORD got = 0;
    HANDLE file = real_CreateFileW(state, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    EnterCriticalSection(&guard);
    if (file != INVALID_HANDLE_VALUE) {
        real_ReadFile(file, text, sizeof text - 1, &got, NULL);
        real_CloseHandle(file);
    }
    text[got] = 0;
    parse(text, c);
    LeaveCriticalSection(&guard);
}

static Disk *disk_of(Computer *c, int number)
{
    for (int i = 0; i < c->disks; i++) if (c->disk[i].number == number) return &c->disk[i];
    return NULL;
}

static Volume *volume_of(Computer *c, const char *name)
{
    for (int i = 0; i < c->volumes; i++) if (!_stricmp(c->volume[i].name, name)) return &c->volume[i];
    return NULL;
}

static Volume *volume_at(Computer *c, char letter)
{
    for (int i = 0; i < c->volumes; i++)
        if (!c->volume[i].place[1] && toupper(c->volume[i].place[0]) == toupper(letter)) return &c->volume[i];
    return NULL;
}

static Opened *known(HANDLE handle)
{
    for (int i = 0; i < 128; i++) if (opened[i].handle && opened[i].handle == handle) return &opened[i];
    return NULL;
}

static HANDLE keep(HANDLE handle, int disk, const char *volume, long long bytes)
{
    if (handle == INVALID_HANDLE_VALUE) return handle;
    EnterCriticalSection(&guard);
    for (int i = 0; i < 128; i++) if (!opened[i].handle) {
        LARGE_INTEGER size = {0};
        memset(&opened[i], 0, sizeof opened[i]);
        opened[i].disk = disk;
        opened[i].size = bytes;
        if (volume) snprintf(opened[i].volume, 80, "%s", volume);
        else if (!bytes && real_GetFileSizeEx(handle, &size)) opened[i].size = size.QuadPart / 512 * 512;
        opened[i].handle = handle;
        break;
    }
    LeaveCriticalSection(&guard);
    return handle;
}

/* Why the medium of a disk cannot be used, 0 if it can. */
static DWORD trouble(Disk *d)
{
    if (!d || !says(d->words, "here")) return ERROR_DEVICE_NOT_CONNECTED;
    if (says(d->words, "changed")) return ERROR_MEDIA_CHANGED;
    return says(d->words, "empty") ? ERROR_NOT_READY : 0;
}

static HANDLE open_disk(int number, DWORD access)
{
    Computer c;
    WCHAR file[520];
    look(&c);
    Disk *d = disk_of(&c, number);
    if (!d || !says(d->words, "here")) return SetLastError(ERROR_FILE_NOT_FOUND), INVALID_HANDLE_VALUE;
    if (access && says(d->words, "denied")) return SetLastError(ERROR_ACCESS_DENIED), INVALID_HANDLE_VALUE;
    MultiByteToWideChar(CP_UTF8, 0, says(d->words, "empty") ? "NUL" : d->file, -1, file, 520);
    return keep(real_CreateFileW(file, access, 7, NULL, OPEN_EXISTING, 0, NULL), number, NULL, number_in(d->words, "bytes=", 0));
}

static HANDLE open_volume(LPCWSTR path, DWORD access)
{
    Computer c;
    char name[120];
    WideCharToMultiByte(CP_UTF8, 0, path + 4, -1, name, 120, NULL, NULL);
    look(&c);
    Volume *v = name[1] == ':' ? volume_at(&c, name[0]) : volume_of(&c, name);
    if (name[0] && name[strlen(name) - 1] == '\\')  /* its root folder */
        return SetLastError(ERROR_PATH_NOT_FOUND), INVALID_HANDLE_VALUE;
    if (!v) return SetLastError(ERROR_FILE_NOT_FOUND), INVALID_HANDLE_VALUE;
    if (says(v->words, "notready")) return SetLastError(ERROR_NOT_READY), INVALID_HANDLE_VALUE;
    Disk *d = disk_of(&c, v->disk);
    if (access && d && says(d->words, "denied")) return SetLastError(ERROR_ACCESS_DENIED), INVALID_HANDLE_VALUE;
    HANDLE handle = keep(real_CreateFileW(L"NUL", GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL), v->disk, v->name, 0);
    Opened *o = known(handle);
    if (o) o->uses = access != 0;
    return handle;
}

static HANDLE WINAPI my_CreateFileW(
    LPCWSTR path, DWORD access, DWORD share, LPSECURITY_ATTRIBUTES security, DWORD how, DWORD flags, HANDLE template)
{
    if (path && (!wcsncmp(path, L"\\\\.\\", 4) || !wcsncmp(path, L"\\\\?\\", 4))) {
        int number, used = 0;
        if (!_wcsnicmp(path + 4, L"PhysicalDrive", 13) && swscanf(path + 17, L"%d%n", &number, &used) && !path[17 + used])
            return open_disk(number, access);
        if (!_wcsnicmp(path + 4, L"Volume{", 7)) return open_volume(path, access);
        if (iswalpha(path[4]) && path[5] == ':' && !path[6]) {  /* a letter of ours; others are Wine's */
            Computer c;
            look(&c);
            if (path[4] < 128 && volume_at(&c, (char)path[4])) return open_volume(path, access);
        }
    }
    return real_CreateFileW(path, access, share, security, how, flags, template);
}

/* Whole sectors, all of them on the disk; anything else is refused. */
static DWORD misplaced(Opened *o, Disk *d, DWORD length, long long *at)
{
    LARGE_INTEGER nothing = {0}, now;
    long long sector = number_in(d->words, "sector=", 512);
    real_SetFilePointerEx(o->handle, nothing, &now, FILE_CURRENT);
    *at = now.QuadPart;
    if (*at % sector || length % sector) return ERROR_INVALID_PARAMETER;
    return *at + length > o->size ? ERROR_SECTOR_NOT_FOUND : 0;
}

/* A mounted volume that this process has neither locked nor dismounted keeps its sectors. */
static BOOL blocked(Computer *c, int disk, long long at, DWORD length)
{
    for (int i = 0; i < c->volumes; i++) {
        Volume *v = &c->volume[i];
        if (v->disk != disk || !says(v->words, "mounted")) continue;
        if (at + length <= v->first || at >= v->first + v->bytes) continue;
        BOOL ours = FALSE;
        for (int k = 0; k < 128; k++)
            if (opened[k].handle && !strcmp(opened[k].volume, v->name) && (opened[k].locked || opened[k].dismounted))
                ours = TRUE;
        if (!ours) return TRUE;
    }
    return FALSE;
}

static BOOL WINAPI my_ReadFile(HANDLE handle, LPVOID data, DWORD length, LPDWORD got, LPOVERLAPPED o)
{
    Opened *disk = known(handle);
    if (disk) {
        Computer c;
        long long at;
        DWORD wrong;
        look(&c);
        if (disk->volume[0]) return fails(ERROR_INVALID_PARAMETER);
        Disk *d = disk_of(&c, disk->disk);
        if ((wrong = trouble(d)) || (wrong = misplaced(disk, d, length, &at))) return fails(wrong);
    }
    return real_ReadFile(handle, data, length, got, o);
}

static BOOL WINAPI my_WriteFile(HANDLE handle, LPCVOID data, DWORD length, LPDWORD done, LPOVERLAPPED o)
{
    Opened *disk = known(handle);
    if (disk) {
        Computer c;
        long long at;
        DWORD wrong;
        look(&c);
        if (disk->volume[0]) return fails(ERROR_ACCESS_DENIED);
        Disk *d = disk_of(&c, disk->disk);
        if ((wrong = trouble(d)) || (wrong = misplaced(disk, d, length, &at))) return fails(wrong);
        if (says(d->words, "protected") || says(d->words, "switch")) return fails(ERROR_WRITE_PROTECT);
        if (blocked(&c, disk->disk, at, length)) return fails(ERROR_ACCESS_DENIED);
    }
    return real_WriteFile(handle, data, length, done, o);
}

/* One lock for a volume, over all processes: a file that is open for nobody else. It goes with its process. */
static BOOL lock_volume(Opened *o, Volume *v)
{
    WCHAR file[620];
    if (says(v->words, "open")) return fails(ERROR_ACCESS_DENIED);
    for (int i = 0; i < 128; i++)  /* also of one that this process uses by another handle */
        if (opened[i].handle && &opened[i] != o && opened[i].uses && !strcmp(opened[i].volume, o->volume))
            return fails(ERROR_ACCESS_DENIED);
    if (o->locked) return TRUE;
    swprintf(file, 620, L"%ls.lock-%hs", state, v->name);
    o->lock = real_CreateFileW(file, GENERIC_WRITE, 0, NULL, OPEN_ALWAYS, 0, NULL);
    if (o->lock == INVALID_HANDLE_VALUE) return o->lock = NULL, fails(ERROR_ACCESS_DENIED);
    return o->locked = TRUE;
}

/* Where a volume lies, stretch by stretch; too little room is an error that tells how many there are. */
static BOOL tell_extents(Computer *c, const char *name, void *out, DWORD room, DWORD *got)
{
    struct { DWORD disk, pad; long long first, bytes; } *extent = (void *)((char *)out + 8);
    DWORD count = 0, fit = room < 32 ? 0 : (room - 8) / 24;
    if (!fit) return fails(ERROR_INSUFFICIENT_BUFFER);
    memset(out, 0, room);
    for (int i = 0; i < c->volumes; i++) {
        Volume *v = &c->volume[i];
        if (_stricmp(v->name, name)) continue;
        if (count++ >= fit) continue;
        extent[count - 1].disk = v->disk;
        extent[count - 1].first = v->first; extent[count - 1].bytes = v->bytes;
    }
    *(DWORD *)out = count;
    if (count > fit) return *got = 8, fails(ERROR_MORE_DATA);
    return *got = 8 + 24 * count, TRUE;
}

static BOOL WINAPI my_DeviceIoControl(
    HANDLE handle, DWORD code, LPVOID in, DWORD n_in, LPVOID out, DWORD n_out, LPDWORD got, LPOVERLAPPED overlapped)
{
    Opened *o = known(handle);
    Computer c;
    DWORD wrong, ignored;
    if (!o) return real_DeviceIoControl(handle, code, in, n_in, out, n_out, got, overlapped);
    if (!got) got = &ignored;
    *got = 0;
    look(&c);
    Disk *d = disk_of(&c, o->disk);
    if ((d || !o->volume[0]) && (wrong = trouble(d))) return fails(wrong);  /* of a volume on other disks none is told */
    if (!o->volume[0]) {
        if (code == 0x70140) return TRUE;
        if (code == 0x70000) {  /* a DISK_GEOMETRY: cylinders, type, tracks and sectors of them, bytes of a sector */
            DWORD geometry[6] = {0, 0, 11, 255, 63, (DWORD)number_in(d->words, "sector=", 512)};
            if (n_out < sizeof geometry) return fails(ERROR_INSUFFICIENT_BUFFER);
            memcpy(out, geometry, sizeof geometry);
            return *got = sizeof geometry, TRUE;
        }
        if (code == 0x2D4800) {
            DWORD changes = (DWORD)number_in(d->words, "changes=", 0);
            if (n_out >= 4) { memcpy(out, &changes, 4); *got = 4; }
            return TRUE;
        }
        if (code != 0x7405C) return fails(ERROR_INVALID_FUNCTION);
        if (n_out < 8) return fails(ERROR_INSUFFICIENT_BUFFER);
        memcpy(out, &o->size, 8);
        return *got = 8, TRUE;
    }
    Volume *v = volume_of(&c, o->volume);
    if (!v) return fails(ERROR_DEVICE_NOT_CONNECTED);
    /* Microsoft does not say what a locked volume answers; this is the worse of the two */
    if (says(v->words, "bitlocker") && code != 0x560000) return fails(FVE_E_LOCKED_VOLUME);
    switch (code) {
    case 0x560000: return tell_extents(&c, v->name, out, n_out, got);
    case 0x90018: return lock_volume(o, v);
    case 0x90020: return says(v->words, "stays") ? fails(ERROR_ACCESS_DENIED) : (o->dismounted = TRUE);
    default: return fails(ERROR_INVALID_FUNCTION);
    }
}

static BOOL WINAPI my_CloseHandle(HANDLE handle)
{
    EnterCriticalSection(&guard);
    Opened *o = known(handle);
    if (o) {
        if (o->lock) real_CloseHandle(o->lock);
        o->handle = NULL;
    }
    LeaveCriticalSection(&guard);
    return real_CloseHandle(handle);
}

static BOOL WINAPI my_FlushFileBuffers(HANDLE handle)
{
    Opened *o = known(handle);
    Computer c;
    DWORD wrong;
    if (o && (look(&c), wrong = trouble(disk_of(&c, o->disk)))) return fails(wrong);
    if (o && !o->volume[0] && says(disk_of(&c, o->disk)->words, "noflush")) return fails(ERROR_IO_DEVICE);
    if (o && !o->volume[0] && says(disk_of(&c, o->disk)->words, "nocache")) return fails(ERROR_INVALID_FUNCTION);
    return real_FlushFileBuffers(handle);
}

/* A disk is no file: it has no size and no information of one. */
static BOOL WINAPI my_GetFileSizeEx(HANDLE handle, PLARGE_INTEGER size)
{
    return known(handle) ? fails(ERROR_INVALID_FUNCTION) : real_GetFileSizeEx(handle, size);
}

static BOOL WINAPI my_GetFileInformationByHandle(HANDLE handle, LPBY_HANDLE_FILE_INFORMATION info)
{
    return known(handle) ? fails(ERROR_INVALID_FUNCTION) : real_GetFileInformationByHandle(handle, info);
}

static BOOL WINAPI my_SetFilePointerEx(HANDLE handle, LARGE_INTEGER to, PLARGE_INTEGER now, DWORD from)
{
    if (from == FILE_END && known(handle)) return fails(ERROR_INVALID_FUNCTION);
    return real_SetFilePointerEx(handle, to, now, from);
}

static DWORD WINAPI my_SetFilePointer(HANDLE handle, LONG low, PLONG high, DWORD from)
{
    if (from == FILE_END && known(handle)) return SetLastError(ERROR_INVALID_FUNCTION), INVALID_SET_FILE_POINTER;
    return real_SetFilePointer(handle, low, high, from);
}

static BOOL name_next(Search *s, LPWSTR name, DWORD length)
{
    Computer c;
    look(&c);
    while (s->next < c.volumes && volume_of(&c, c.volume[s->next].name) != &c.volume[s->next]) s->next++;
    if (s->next >= c.volumes) return fails(ERROR_NO_MORE_FILES);
    swprintf(name, length, L"\\\\?\\%hs\\", c.volume[s->next++].name);
    return TRUE;
}

static HANDLE WINAPI my_FindFirstVolumeW(LPWSTR name, DWORD length)
{
    for (int i = 0; i < 8; i++) if (!searches[i].used) {
        searches[i] = (Search){0, TRUE};
        if (name_next(&searches[i], name, length)) return (HANDLE)&searches[i];
        searches[i].used = FALSE;
        break;
    }
    return INVALID_HANDLE_VALUE;
}

static BOOL WINAPI my_FindNextVolumeW(HANDLE search, LPWSTR name, DWORD length)
{
    return name_next((Search *)search, name, length);
}

/* Where a volume is shown: its letter, as "E:\\", or a folder; a zero after each name and after the last. */
static BOOL WINAPI my_GetVolumePathNamesForVolumeNameW(LPCWSTR volume, LPWSTR names, DWORD length, PDWORD needed)
{
    Computer c;
    char name[120];
    WideCharToMultiByte(CP_UTF8, 0, wcsncmp(volume, L"\\\\?\\", 4) ? volume : volume + 4, -1, name, 120, NULL, NULL);
    if (!name[0] || name[strlen(name) - 1] != '\\') return fails(ERROR_INVALID_NAME);
    name[strlen(name) - 1] = 0;
    look(&c);
    Volume *v = volume_of(&c, name);
    if (!v) return real_GetVolumePathNamesForVolumeNameW(volume, names, length, needed);
    WCHAR place[264] = {0};
    if (v->place[0] != '-') swprintf(place, 262, v->place[1] ? L"%hs" : L"%hs:\\", v->place);
    *needed = place[0] ? (DWORD)wcslen(place) + 2 : 1;
    if (length < *needed) return fails(ERROR_MORE_DATA);
    memcpy(names, place, *needed * sizeof *names);
    return TRUE;
}

static BOOL WINAPI my_FindVolumeClose(HANDLE search) { return ((Search *)search)->used = FALSE, TRUE; }

/* Let kernel32's import of a function come here; keep where it went. */
static void divert(const char *name, void *mine, void *real)
{
    BYTE *base = (BYTE *)GetModuleHandleW(L"kernel32.dll");
    IMAGE_NT_HEADERS *head = (void *)(base + ((IMAGE_DOS_HEADER *)base)->e_lfanew);
    DWORD table = head->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT].VirtualAddress;
    for (IMAGE_IMPORT_DESCRIPTOR *from = (void *)(base + table); from->Name; from++) {
        IMAGE_THUNK_DATA *names = (void *)(base + from->OriginalFirstThunk), *calls = (void *)(base + from->FirstThunk);
        for (; names->u1.AddressOfData; names++, calls++) {
            if (IMAGE_SNAP_BY_ORDINAL(names->u1.Ordinal)) continue;
            if (strcmp(((IMAGE_IMPORT_BY_NAME *)(base + names->u1.AddressOfData))->Name, name)) continue;
            DWORD before;
            VirtualProtect(&calls->u1.Function, sizeof(void *), PAGE_READWRITE, &before);
            *(void **)real = (void *)calls->u1.Function;
            calls->u1.Function = (ULONGLONG)mine;
            VirtualProtect(&calls->u1.Function, sizeof(void *), before, &before);
            return;
        }
    }
    fprintf(stderr, "disks.dll: kernel32 does not import %s here\n", name);
    ExitProcess(3);
}

#define DIVERT(name) divert(#name, my_##name, &real_##name)

BOOL WINAPI DllMain(HINSTANCE self, DWORD why, LPVOID reserved)
{
    if (why != DLL_PROCESS_ATTACH) return TRUE;
    if (!GetEnvironmentVariableW(L"MINISCOPE_XR_DISKS", state, 520)) return FALSE;
    InitializeCriticalSection(&guard);
    DIVERT(GetFileSizeEx); DIVERT(SetFilePointerEx); DIVERT(SetFilePointer); DIVERT(GetFileInformationByHandle);
    DIVERT(CloseHandle); DIVERT(ReadFile); DIVERT(WriteFile); DIVERT(FlushFileBuffers); DIVERT(DeviceIoControl);
    DIVERT(FindFirstVolumeW); DIVERT(FindNextVolumeW); DIVERT(FindVolumeClose);
    DIVERT(GetVolumePathNamesForVolumeNameW); DIVERT(CreateFileW);
    return TRUE;
}
