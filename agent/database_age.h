/* database_age.h - is the database as new as what there is on the host?  Loop thread, at the start.
 *
 * An instance number is committed, with the high-water mark, before a file, directory or process is
 * made under it, and its row goes last.  So a number above the mark says that the database is
 * empty, an old copy or another node's; and so does one below that no row names, if its VM runs, or
 * if its files are there and those of a row are missing.  What the rows do not name must not be
 * taken for leftovers then: it is refused, and nothing is changed. */
#pragma once

struct error;
struct node;

/* 0, also where the configuration accepts it, or -EUCLEAN with what was found and what to do. */
int database_age_check(const struct node *node, struct error *err);
