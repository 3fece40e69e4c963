/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/spelling.h"

#include <string.h>

enum { NAME_MAX_ = 32 }; /* no name is longer, nor is a word that is near to one */

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;

    return ab < c ? ab : c;
}

unsigned spelling_distance(const char *word, size_t size, const char *name)
{
    unsigned row[NAME_MAX_ + 1], n = (unsigned)strlen(name);

    if (size > NAME_MAX_ || n > NAME_MAX_)
        return SPELLING_FAR + 1;
    for (unsigned k = 0; k <= n; k++)
        row[k] = k;
    for (unsigned i = 1; i <= size; i++) {
        unsigned corner = row[0]; /* what stood to the upper left */

        row[0] = i;
        for (unsigned k = 1; k <= n; k++) {
            unsigned above = row[k];

            row[k] = least(above + 1, row[k - 1] + 1, corner + (word[i - 1] != name[k - 1]));
            corner = above;
        }
    }
    return row[n] > SPELLING_FAR ? SPELLING_FAR + 1 : row[n];
}
