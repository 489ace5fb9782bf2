-- The table that docs/examples/telemetry.yaml writes to. The unique index is what makes a repeated message one row.
create table if not exists telemetry (
    message_id  text not null,
    device_id   text not null,
    ts          timestamptz not null,
    pref        text,
    temp        double precision,
    humidity    double precision,
    received_at timestamptz not null default now()
);
create unique index if not exists telemetry_message_id on telemetry (message_id);
