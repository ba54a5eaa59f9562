/* powershell.exe for the disks of disks.h: what Get-Disk, Get-Partition and Win32_DiskDrive say, as JSON.
 * Like Windows PowerShell 5.1 it writes the console's old code page (850 here) unless the script asks for UTF-8, one
 * object alone without brackets, nothing for nothing, and exit code 1 where a disk or its partitions were not found. */
#include "disks.h"
#include <stdlib.h>

static char out[65536];
static int things;

static void thing(const char *text) { strcat(out, things++ ? ",\r\n" : ""); strcat(out, text); }

static void quoted(char *to, const char *text)
{
    for (; *text; text++) { if (*text == '"' || *text == '\\') *to++ = '\\'; *to++ = *text; }
    *to = 0;
}

static void say(BOOL utf8)
{
    static WCHAR wide[65536];
    static char bytes[65536];
    char *text = malloc(70000);
    sprintf(text, things > 1 ? "[\r\n%s\r\n]\r\n" : things ? "%s\r\n" : "%s", out);
    int n = MultiByteToWideChar(CP_UTF8, 0, text, -1, wide, 65536);
    int length = WideCharToMultiByte(utf8 ? CP_UTF8 : 850, 0, wide, n, bytes, 65536, NULL, NULL) - 1;
    DWORD done;
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), bytes, length, &done, NULL);
}

static long long size_of(Disk *d)
{
    WCHAR file[520];
    WIN32_FILE_ATTRIBUTE_DATA facts;
    if (says(d->words, "empty")) return 0;
    if (number_in(d->words, "bytes=", 0)) return number_in(d->words, "bytes=", 0);
    MultiByteToWideChar(CP_UTF8, 0, d->file, -1, file, 520);
    if (!GetFileAttributesExW(file, GetFileExInfoStandard, &facts)) return 0;
    return (((long long)facts.nFileSizeHigh << 32) + facts.nFileSizeLow) / 512 * 512;
}

/* What one command of the script says; 1 where the disk or its partitions were not found. */
static int answer(Computer *c, const char *script)
{
    static char line[4096], name[300], serial[300];
    const char *at;
    int number = -1;
    out[0] = things = 0;
    if ((at = strstr(script, "-Number "))) number = atoi(at + 8);
    if ((at = strstr(script, "-DiskNumber "))) number = atoi(at + 12);
    if ((at = strstr(script, "Index="))) number = atoi(at + 6);
    if (strstr(script, "Get-Partition"))
        for (int i = 0, part = 1; i < c->volumes; i++) {
            Volume *v = &c->volume[i];
            if (v->disk != number || !v->first) continue;  /* a volume from sector 0 on is no partition */
            char letter[12] = "\"\\u0000\"";
            if (v->place[0] != '-' && !v->place[1]) sprintf(letter, "\"%c\"", v->place[0]);
            sprintf(line, "{\"PartitionNumber\": %d, \"DriveLetter\": %s}", part++, letter);
            thing(line);
        }
    else
        for (int i = 0; i < c->disks; i++) {
            Disk *d = &c->disk[i];
            if (!says(d->words, "here") || (number >= 0 && d->number != number)) continue;
            quoted(name, d->name); quoted(serial, d->serial);
            if (strstr(script, "Win32_DiskDrive")) sprintf(line,
                "{\"MediaType\": \"%s\", \"Capabilities\": {\"value\": [3, 4%s], \"Count\": %d}}", d->media,
                says(d->media, "hard disk") ? "" : ", 7", says(d->media, "hard disk") ? 2 : 3);
            else sprintf(line,
                "{\"Number\": %d, \"FriendlyName\": \"%s\", \"SerialNumber\": \"%s\", \"BusType\": \"%s\", \"Size\": %lld, "
                "\"LogicalSectorSize\": %lld, \"IsBoot\": %s, \"IsSystem\": %s, \"IsReadOnly\": %s}",
                d->number, name, serial, d->bus, size_of(d), number_in(d->words, "sector=", 512), says(d->words, "system") ? "true" : "false",
                says(d->words, "system") ? "true" : "false", says(d->words, "protected") ? "true" : "false");
            thing(line);
        }
    return !things && number >= 0;
}

int main(int argc, char **argv)
{
    static Computer c;
    static char text[32768], script[4096];
    const char *state = getenv("MINISCOPE_XR_DISKS");
    FILE *file = state ? fopen(state, "rb") : NULL;
    if (argc < 2) { fprintf(stderr, "powershell: only -Command is simulated\n"); return 1; }
    if (state && !file) { fprintf(stderr, "powershell: %s cannot be read\n", state); return 1; }
    if (file) {  /* without one it is a computer without disks */
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
    }
    parse(text, &c);
    snprintf(script, sizeof script, "%s", argv[argc - 1]);
    BOOL utf8 = strstr(script, "[Console]::OutputEncoding = [Text.Encoding]::UTF8;") != NULL;
    const char *marks = "; '-----'; ";
    char *next, *command = script;
    int failed;
    DWORD done;
    if (utf8) WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), "\xef\xbb\xbf", 3, &done, NULL);
    for (;; command = next + strlen(marks)) {  /* the exit code is that of the last command */
        next = strstr(command, marks);
        if (next) *next = 0;
        failed = answer(&c, command);
        say(utf8);
        if (!next) return failed && !strstr(command, "; exit 0");
        WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), "-----\r\n", 7, &done, NULL);
    }
}
