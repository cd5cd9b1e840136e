-- Version 3.  What happened, as GET /v1/events tells it: a row for each change of a resource's row,
-- written with it (database_events.c).
CREATE TABLE event (
    id       INTEGER NOT NULL PRIMARY KEY,   -- the revision of the change
    kind     TEXT    NOT NULL,               -- of the resource, as the next
    resource TEXT    NOT NULL,
    type     TEXT    NOT NULL,               -- created, changed, deleted
    document TEXT    NOT NULL                -- JSON, as the API shows it
) STRICT;

-- The newest revision of which events may be gone.
INSERT INTO counter SELECT 'events_trimmed', value FROM counter WHERE name = 'revision';
