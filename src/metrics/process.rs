//! This process, as `/proc` shows it, under the names that every exporter gives.

use std::fs;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::present::constant;

/// What is known of this process at the moment. What cannot be read is left out.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    if let Some(stat) = Stat::read() {
        let cpu = ConstCounter::new(stat.cpu_seconds);
        registry.register("process_cpu_seconds", "Processor time that the process has used", cpu);
        constant(&mut registry, "process_resident_memory_bytes", "Memory that is resident", stat.resident_bytes);
        constant(&mut registry, "process_virtual_memory_bytes", "Memory that is mapped", stat.virtual_bytes);
        constant(&mut registry, "process_threads", "Threads of the process", stat.threads);
        if let Some(boot) = boot_time() {
            let started = boot + stat.started;
            constant(&mut registry, "process_start_time_seconds", "When the process started, since 1970", started);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory's.
        let open = (descriptors.count() as u64).saturating_sub(1);
        constant(&mut registry, "process_open_fds", "Descriptors that are open", open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        constant(&mut registry, "process_max_fds", "Descriptors that may be open", most);
    }
    registry
}

/// What is wanted of `/proc/self/stat`.
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// Seconds after the boot.
    started: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read("/proc/self/stat").ok()?;
        // pid (name, which may hold any bytes) state … : what follows the name begins with the third field.
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            threads: field(20)?,
            started: seconds(field(22)?),
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_size() as u64,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
