/* What SQLite fails with, in our terms. */
#include <errno.h>

#include "base/error.h"
#include "storage/database_internal.h"

static int errno_of(int sqlite_code)
{
    switch (sqlite_code) {
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EBUSY;
    case SQLITE_READONLY:
        return EROFS;
    case SQLITE_CONSTRAINT:
        return EINVAL;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EUCLEAN;
    default:
        return EIO;
    }
}

int database_damaged(const char *how, struct error *err)
{
    return error_set(err, EUCLEAN,
                     "warren.db is damaged (%s): restore a backup of it; running VMs go on", how);
}

int database_fail(sqlite3 *sqlite, const char *what, struct error *err)
{
    int code = errno_of(sqlite3_errcode(sqlite));

    if (code == EUCLEAN)
        return database_damaged(sqlite3_errmsg(sqlite), err);
    return error_set(err, code, "database: %s: %s", what, sqlite3_errmsg(sqlite));
}
