/* trash.h - what a sweep takes away: moved aside at once, and removed by who can wait, for a large
 * file's blocks take seconds.  Any thread. */
#pragma once

struct error;

/* A file, or a directory of files, into the trash beside it; removed here if it cannot be moved.
 * 0, also if it is not there, or -errno. */
int trash_move(int dir_fd, const char *name);
/* Removes what is in it, and the trash itself; 0 if there is none, too. */
int trash_empty(int dir_fd, struct error *err);
