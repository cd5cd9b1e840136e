-- Version 1.  PRAGMA user_version holds the version of the schema; database.c migrates upwards only
-- (database_schema.c).
-- One row per resource: what the user asked for (spec) and what is known of it (status), both
-- canonical JSON, so that a reader with sqlite3 sees what the API shows.
CREATE TABLE resource (
    kind       TEXT    NOT NULL,             -- image, volume, network, vm, snapshot, operation, node
    id         TEXT    NOT NULL,
    uid        TEXT    NOT NULL UNIQUE,
    instance   INTEGER NOT NULL UNIQUE,      -- names taps, uids, cgroups, files; never used again
    generation INTEGER NOT NULL,             -- counts changes of the spec
    revision   INTEGER NOT NULL,             -- the node's change count when this row was written
    spec       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- High-water marks that outlive the rows they were given to.
CREATE TABLE counter (
    name  TEXT    NOT NULL PRIMARY KEY,      -- instance, revision
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('instance', 0), ('revision', 0);
