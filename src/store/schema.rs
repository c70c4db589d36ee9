//! The tables, as the migrations make them.

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    workspaces (id) {
        id -> Uid,
        created -> Instant,
        last_modified -> Instant,
        name -> Text,
        alias -> Text,
        status -> Text,
        deleted -> Nullable<Instant>,
        origin -> Nullable<Text>,
        name_key -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    queues (workspace) {
        workspace -> Uid,
        turn -> Nullable<Instant>,
        served -> Instant,
    }
}

// SQLite only, with one row: the latest number that a row got.
diesel::table! {
    numbers (last) {
        last -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    nodes (id) {
        id -> Uid,
        name -> Text,
        started -> Instant,
        lease_until -> Instant,
        pid -> Integer,
        pid_start -> BigInt,
        machine -> Text,
        home -> Uid,
        directory -> Text,
        shared -> Nullable<Uid>,
        lease_length -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    pipelines (id) {
        id -> Uid,
        workspace -> Uid,
        created -> Instant,
        last_modified -> Instant,
        name -> Text,
        status -> Text,
        definition -> Uid,
        deleted -> Nullable<Instant>,
        next_run -> Nullable<Instant>,
        last_tick -> Nullable<Instant>,
        name_key -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::Uid;

    definitions (id) {
        id -> Uid,
        pipeline -> Uid,
        body -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    invitations (id) {
        id -> Uid,
        workspace -> Uid,
        created -> Instant,
        email -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    jobs (id) {
        id -> Uid,
        workspace -> Uid,
        pipeline -> Nullable<Uid>,
        definition -> Nullable<Uid>,
        #[sql_name = "type"]
        type_ -> Text,
        created -> Instant,
        max_attempts -> Integer,
        status -> Text,
        attempt -> Integer,
        not_before -> Nullable<Instant>,
        ready -> Nullable<Instant>,
        start_time -> Nullable<Instant>,
        end_time -> Nullable<Instant>,
        exit_code -> Nullable<Integer>,
        commit_id -> Nullable<Text>,
        stop_requested -> Nullable<Instant>,
        stop_reason -> Nullable<Text>,
        deleted -> Nullable<Instant>,
        owner -> Nullable<Uid>,
        supervisor_pid -> Nullable<Integer>,
        supervisor_start -> Nullable<BigInt>,
        supervisor_boot -> Nullable<Text>,
        latest_change -> BigInt,
        changed_at -> Instant,
        previous_status -> Nullable<Text>,
        log_lines -> BigInt,
        log_bytes -> BigInt,
        cause -> Text,
        cause_job -> Nullable<Uid>,
        cause_tick -> Nullable<Instant>,
        failure -> Nullable<Text>,
        node -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    changes (arrival) {
        arrival -> BigInt,
        position -> Nullable<BigInt>,
        workspace -> Uid,
        pipeline -> Nullable<Uid>,
        job -> Nullable<Uid>,
        status -> Nullable<Text>,
        previous_status -> Nullable<Text>,
        attempt -> Nullable<Integer>,
        at -> Instant,
        deleted -> Bool,
        skipped -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::Uid;

    log_chunks (job, last_sequence) {
        job -> Uid,
        last_sequence -> BigInt,
        first_sequence -> BigInt,
        bytes -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::Uid;

    triggers (pipeline, source) {
        pipeline -> Uid,
        source -> Uid,
        place -> Integer,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    data_components (id) {
        id -> Uid,
        workspace -> Uid,
        created -> Instant,
        last_modified -> Instant,
        name -> Text,
        plugin -> Text,
        properties -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::Instant;

    encryption_keys (fingerprint) {
        fingerprint -> Text,
        created -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    webhooks (id) {
        id -> Uid,
        workspace -> Uid,
        pipeline -> Nullable<Uid>,
        created -> Instant,
        last_modified -> Instant,
        url -> Text,
        level -> Text,
        secret -> Text,
        last_success -> Nullable<Instant>,
        last_failure -> Nullable<Instant>,
        last_error -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    deliveries (id) {
        id -> Uid,
        webhook -> Uid,
        change -> BigInt,
        created -> Instant,
        attempt -> Integer,
        not_before -> Instant,
        body -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::Instant;

    clock_jumps (id) {
        id -> BigInt,
        expected -> Instant,
        shown -> Instant,
        node -> Text,
    }
}

diesel::joinable!(pipelines -> definitions (definition));
diesel::joinable!(invitations -> workspaces (workspace));
diesel::joinable!(jobs -> workspaces (workspace));
diesel::joinable!(data_components -> workspaces (workspace));
diesel::joinable!(webhooks -> workspaces (workspace));
diesel::joinable!(deliveries -> webhooks (webhook));
diesel::allow_tables_to_appear_in_same_query!(
    workspaces,
    queues,
    nodes,
    pipelines,
    definitions,
    invitations,
    jobs,
    changes,
    triggers,
    data_components,
    webhooks,
    deliveries,
);
