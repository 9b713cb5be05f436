//! What a process of this machine has used, from `/proc`.

use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use serde::Serialize;

use super::Failure;

/// Memory of a process and its descendants, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident set: shared pages count in every process.
    pub rss: u64,
    /// Proportional set: a page shared by n processes counts as 1/n.
    pub pss: u64,
}

/// CPU time of a process and its descendants, user and system, to a clock tick (10 ms, usually).
pub fn cpu(pid: u32) -> Result<Duration, Failure> {
    let ticks: u64 = family(pid)?.iter().filter_map(|pid| Some(stat(*pid)?.ticks)).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Memory of a process and its descendants.
pub fn memory(pid: u32) -> Result<Memory, Failure> {
    let mut total = Memory::default();
    for pid in family(pid)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = read_to_string(&path).map_err(|error| Failure::Runtime(format!("--pid: {path}: {error}")))?;
        let kilobytes = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        total.rss += 1024 * kilobytes("Rss:");
        total.pss += 1024 * kilobytes("Pss:");
    }
    Ok(total)
}

/// A process and all that descend from it.
fn family(pid: u32) -> Result<Vec<u32>, Failure> {
    if stat(pid).is_none() {
        return Err(Failure::Runtime(format!("--pid {pid}: there is no such process")));
    }
    let entries = read_dir("/proc").map_err(|error| Failure::Runtime(format!("/proc: {error}")))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in pids.filter_map(|pid: u32| Some((pid, stat(pid)?.parent))) {
        children.entry(parent).or_default().push(pid);
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(family)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// `None` if the process is gone.
fn stat(pid: u32) -> Option<Stat> {
    let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, ticks: number(11)? + number(12)? })
}

/// Measures from its making to [`Meter::read`].
pub struct Meter {
    server: Option<u32>,
    at: Instant,
    server_cpu: Duration,
    own_cpu: Duration,
}

/// What a stretch of time cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    pub seconds: f64,
    /// CPU seconds of the broker, where its process is known.
    pub server_cpu_seconds: Option<f64>,
    pub server_memory: Option<Memory>,
    pub generator_cpu_seconds: f64,
}

impl Meter {
    pub fn start(server: Option<u32>) -> Result<Self, Failure> {
        let server_cpu = server.map_or(Ok(Duration::ZERO), cpu)?;
        Ok(Self { server, at: Instant::now(), server_cpu, own_cpu: cpu(std::process::id())? })
    }

    pub fn read(&self) -> Result<Cost, Failure> {
        let seconds = self.at.elapsed().as_secs_f64();
        let server_cpu = self.server.map(cpu).transpose()?;
        let own_cpu = cpu(std::process::id())?;
        Ok(Cost {
            seconds,
            server_cpu_seconds: server_cpu.map(|cpu| (cpu - self.server_cpu).as_secs_f64()),
            server_memory: self.server.map(memory).transpose()?,
            generator_cpu_seconds: (own_cpu - self.own_cpu).as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{cpu, memory};

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        let memory = memory(own).expect("this process lives");
        assert!(memory.pss > 0 && memory.rss >= memory.pss, "{memory:?}");
        let before = cpu(own).expect("this process lives");
        while cpu(own).expect("this process lives") == before {}
    }

    #[test]
    fn nobody() {
        assert_eq!(cpu(u32::MAX).expect_err("no such pid").to_string(), "--pid 4294967295: there is no such process");
    }
}
