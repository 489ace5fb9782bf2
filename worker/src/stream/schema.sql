CREATE TABLE IF NOT EXISTS @.meta (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    schema_version integer NOT NULL,
    cluster_id text
);

CREATE TABLE IF NOT EXISTS @.revision (
    query text NOT NULL,
    revision text NOT NULL,
    partitions integer NOT NULL,
    PRIMARY KEY (query, revision)
);

CREATE TABLE IF NOT EXISTS @.partition (
    query text NOT NULL,
    revision text NOT NULL,
    part integer NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    next_offset bigint NOT NULL DEFAULT 0,
    watermark bigint NOT NULL,
    max_event_time bigint,
    read_at bigint,
    stalled_claims integer NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    owner text,
    on_time bigint NOT NULL DEFAULT 0,
    adjusted bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    without_arrival bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    lost bigint NOT NULL DEFAULT 0,
    lost_at timestamptz,
    letters_from bigint,
    letters_to bigint,
    PRIMARY KEY (query, revision, part)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS @.substream (
    query text NOT NULL,
    revision text NOT NULL,
    part integer NOT NULL,
    key bytea NOT NULL,
    watermark bigint NOT NULL,
    PRIMARY KEY (query, revision, part, key)
);

CREATE TABLE IF NOT EXISTS @.partial (
    query text NOT NULL,
    revision text NOT NULL,
    step integer NOT NULL,
    win integer NOT NULL,
    pane bigint NOT NULL,
    domain bytea NOT NULL,
    key bytea NOT NULL,
    part integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (query, revision, step, win, pane, domain, key, part)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE IF NOT EXISTS @.close (
    query text NOT NULL,
    revision text NOT NULL,
    step integer NOT NULL,
    win integer NOT NULL,
    upto bigint NOT NULL,
    target bigint,
    after_domain bytea,
    after_key bytea,
    PRIMARY KEY (query, revision, step, win)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS @.boundary (
    query text PRIMARY KEY,
    old_revision text NOT NULL,
    new_revision text NOT NULL,
    since bigint NOT NULL,
    at bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS @.worker (
    query text NOT NULL,
    revision text NOT NULL,
    name text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (query, revision, name)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS @.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    query text NOT NULL,
    revision text NOT NULL,
    part integer,
    stream_offset bigint,
    message_id text,
    stage text NOT NULL,
    reason text NOT NULL,
    error text NOT NULL,
    body bytea NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS @.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    query text NOT NULL,
    revision text NOT NULL,
    output text NOT NULL,
    exchange text NOT NULL,
    message_id text NOT NULL,
    routing_key text NOT NULL,
    body text NOT NULL
);

INSERT INTO @.meta (schema_version) VALUES (1) ON CONFLICT DO NOTHING;
