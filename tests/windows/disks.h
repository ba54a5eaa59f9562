/* The card readers of the simulated computer: a text file, named by MINISCOPE_XR_DISKS, read anew at each call.
 *
 * disk   <tab> number <tab> file <tab> words <tab> bus <tab> media <tab> name <tab> serial number
 *        words: here (plugged in), empty (no card), protected (write protection), switch (the same, of which only a
 *        write tells), denied (no administrator), system (Windows is on it), changes=N (how often the card in the
 *        reader was changed), changed (it was, and Windows has not looked at the new one yet), noflush (its cache
 *        cannot be written out), nocache (it has none, and no function to write it out), sector=N (bytes of a sector),
 *        bytes=N (its size, which Wine does not tell of a device of Linux)
 * volume <tab> name <tab> disk <tab> first byte <tab> bytes <tab> place <tab> words
 *        place: its letter, or the folder it is shown in (C:\cards\mine\), or -; a volume that lies on several
 *        stretches of disks has a line for each
 *        words: mounted (a file system other than RAW), open (a program has a file of it open), notready, stays (it is
 *        not dismounted), bitlocker (what is on it is locked, and Windows says so of each control code)
 */
#include <windows.h>
#include <stdio.h>
#include <string.h>

typedef struct { int number; char file[520], words[120], bus[40], media[80], name[120], serial[80]; } Disk;
typedef struct { char name[80]; int disk; long long first, bytes; char place[260], words[80]; } Volume;
typedef struct { int disks, volumes; Disk disk[16]; Volume volume[128]; } Computer;

static char *field(char **rest)
{
    char *found = *rest;
    *rest += strcspn(found, "\t\r");
    if (**rest == '\t') *(*rest)++ = 0;
    else **rest = 0;
    return found;
}

#define COPY(to, rest) snprintf(to, sizeof to, "%s", field(rest))

static void parse(char *text, Computer *c)
{
    memset(c, 0, sizeof *c);
    for (char *next = NULL, *line = text; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        char *rest = line, *kind = field(&rest);
        if (!strcmp(kind, "disk") && c->disks < 16) {
            Disk *d = &c->disk[c->disks++];
            d->number = atoi(field(&rest));
            COPY(d->file, &rest); COPY(d->words, &rest); COPY(d->bus, &rest);
            COPY(d->media, &rest); COPY(d->name, &rest); COPY(d->serial, &rest);
        } else if (!strcmp(kind, "volume") && c->volumes < 128) {
            Volume *v = &c->volume[c->volumes++];
            COPY(v->name, &rest);
            v->disk = atoi(field(&rest));
            v->first = atoll(field(&rest)); v->bytes = atoll(field(&rest));
            COPY(v->place, &rest); COPY(v->words, &rest);
        }
    }
}

static BOOL says(const char *words, const char *word) { return strstr(words, word) != NULL; }

/* The number behind a word such as "bytes=", or another one where it is not said. */
static long long number_in(const char *words, const char *word, long long other)
{
    const char *at = strstr(words, word);
    return at ? _atoi64(at + strlen(word)) : other;
}
