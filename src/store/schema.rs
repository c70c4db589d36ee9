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
        changed_position -> BigInt,
        changed_at -> Instant,
        previous_status -> Nullable<Text>,
        log_lines -> BigInt,
        log_bytes -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::types::{Instant, Uid};

    status_changes (position) {
        position -> BigInt,
        job -> Uid,
        workspace -> Uid,
        pipeline -> Nullable<Uid>,
        status -> Text,
        previous_status -> Nullable<Text>,
        attempt -> Integer,
        at -> Instant,
        deleted -> Bool,
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

diesel::joinable!(pipelines -> definitions (definition));
diesel::joinable!(invitations -> workspaces (workspace));
diesel::joinable!(jobs -> workspaces (workspace));
diesel::allow_tables_to_appear_in_same_query!(workspaces, pipelines, definitions, invitations, jobs);
