//! The enums. Their names are the same in the database, in Rust and in GraphQL.

/// An enum that is stored as its name and spelled the same in GraphQL.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, async_graphql::Enum,
            diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
        )]
        #[diesel(sql_type = diesel::sql_types::Text)]
        pub enum $name { $($(#[$variant_meta])* #[graphql(name = $text)] $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// What a job does.
    JobType {
        /// A system task that creates the workspace's repository; queued when a workspace is created.
        WorkspaceInit = "WORKSPACE_INIT",
        /// A system task that writes a pipeline's definition into the workspace's repository; queued when a pipeline is
        /// created or renamed, and when a FAILED one is updated.
        PipelineConfig = "PIPELINE_CONFIG",
        /// A system task that shows and tests the configuration of a pipeline.
        PipelineVerify = "PIPELINE_VERIFY",
        /// A run of a pipeline.
        PipelineRun = "PIPELINE_RUN",
        /// A user task: send an invitation.
        ProfileCollaborate = "PROFILE_COLLABORATE",
        /// A user task: create a pipeline.
        ProfileImport = "PROFILE_IMPORT",
    }
}

named! {
    /// How far a job is.
    JobStatus {
        /// The job is queued: it waits for a runner, or, a user task, for a person.
        Queued = "QUEUED",
        /// The job is running.
        Running = "RUNNING",
        /// The job finished with no errors.
        Complete = "COMPLETE",
        /// The job finished with errors.
        Error = "ERROR",
        /// The job timed out or was stopped.
        Stopped = "STOPPED",
    }
}

named! {
    /// Why a job was, or is being, stopped.
    JobStopReason {
        /// Somebody asked for it.
        Requested = "REQUESTED",
        /// It ran longer than its timeout.
        Timeout = "TIMEOUT",
    }
}

named! {
    /// Why a job was queued.
    CauseType {
        /// Somebody asked for it, or for what it belongs to.
        User = "USER",
        /// A tick of its pipeline's schedule came.
        Schedule = "SCHEDULE",
        /// A run of a pipeline that triggers its own was COMPLETE.
        Trigger = "TRIGGER",
    }
}

named! {
    /// What happened to a pipeline.
    ActivityKind {
        /// An attempt of a job started.
        Started = "STARTED",
        /// A job ended with no errors, or was stopped.
        Ended = "ENDED",
        /// A job ended with errors.
        Failed = "FAILED",
        /// A run that a schedule or a trigger would have queued was not.
        Skipped = "SKIPPED",
    }
}

named! {
    /// Which of the things that happen to pipelines somebody wants to hear of.
    ActivityLevel {
        /// Everything.
        All = "ALL",
        /// What went wrong: jobs that failed, and runs that were skipped.
        Errors = "ERRORS",
    }
}

named! {
    /// What a data plugin is for.
    PluginType {
        /// It reads from a source.
        Extractor = "EXTRACTOR",
        /// It writes to a destination.
        Loader = "LOADER",
        /// It changes records between the two.
        Mapper = "MAPPER",
        /// It starts what other plugins do.
        Orchestrator = "ORCHESTRATOR",
        /// It changes what was loaded.
        Transformer = "TRANSFORMER",
        /// It does anything else.
        Utility = "UTILITY",
    }
}

named! {
    /// What the values of a setting are.
    SettingKind {
        /// A JSON array.
        Array = "ARRAY",
        /// `true` or `false`.
        Boolean = "BOOLEAN",
        /// A date or an instant in ISO 8601.
        Date = "DATE",
        /// A decimal number.
        Decimal = "DECIMAL",
        /// An e-mail address.
        Email = "EMAIL",
        /// The content, or the path, of a file.
        File = "FILE",
        /// An integer.
        Integer = "INTEGER",
        /// A JSON object.
        Object = "OBJECT",
        /// One of the setting's options.
        Options = "OPTIONS",
        /// Any text.
        String = "STRING",
    }
}

named! {
    /// Where a log line comes from.
    LogStream {
        /// The job's standard output.
        Stdout = "STDOUT",
        /// The job's standard error.
        Stderr = "STDERR",
        /// The server, saying what it did with the job.
        System = "SYSTEM",
    }
}

named! {
    /// Whether a workspace or pipeline can be used.
    ResourceStatus {
        /// Its changes are being processed.
        Provisioning = "PROVISIONING",
        /// Its changes were processed.
        Ready = "READY",
        /// Its changes could not be processed.
        Failed = "FAILED",
    }
}

impl JobType {
    /// The two tasks that wait for a person. No runner takes them.
    pub const USER_TASKS: [Self; 2] = [Self::ProfileCollaborate, Self::ProfileImport];
    /// The server's own tasks, which may be run again after a crash at any point.
    pub const SYSTEM_TASKS: [Self; 3] = [Self::WorkspaceInit, Self::PipelineConfig, Self::PipelineVerify];
    /// The tasks that change the workspace's repository, one at a time.
    pub const REPOSITORY_TASKS: [Self; 2] = [Self::WorkspaceInit, Self::PipelineConfig];
}

impl JobStatus {
    /// The statuses that do not change any more.
    pub const FINAL: [Self; 3] = [Self::Complete, Self::Error, Self::Stopped];
    /// The statuses of a job that has not ended.
    pub const ACTIVE: [Self; 2] = [Self::Queued, Self::Running];

    /// Whether a job with this status never changes any more.
    pub fn is_final(self) -> bool {
        Self::FINAL.contains(&self)
    }
}
