//! What the machine is, and what this process takes of it.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;
use std::fs;
use std::ops::Sub;

/// The machine of a run, as far as it matters to the figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// How the first core's frequency is governed; `None` where the machine does not tell.
    pub(crate) governor: Option<String>,
    /// Runnable tasks on average over the last minute when the run began: what else went on.
    pub(crate) load_average: Option<f64>,
}

/// What this program was built from and with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Build {
    /// The version of this program and of the engine, which are released together.
    pub(crate) version: &'static str,
    /// The commit of its sources, with "-dirty" where they differed from it; empty where it was not known.
    pub(crate) commit: &'static str,
    pub(crate) compiler: &'static str,
    /// "release" or "debug".
    pub(crate) profile: &'static str,
}

impl Build {
    /// This program.
    pub(crate) fn this() -> Self {
        Build {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("QUIPU_COMMIT"),
            compiler: env!("QUIPU_COMPILER"),
            profile: env!("QUIPU_PROFILE"),
        }
    }
}

impl Machine {
    /// This machine. What the system does not tell is "unknown" or 0.
    pub(crate) fn here() -> Self {
        let (kernel, architecture) = nix::sys::utsname::uname().map_or_else(
            |_| ("unknown".to_string(), "unknown".to_string()),
            |name| (name.release().to_string_lossy().into(), name.machine().to_string_lossy().into()),
        );
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            kernel,
            architecture,
            cpu: cpu.map_or("unknown", |(_, model)| model).to_string(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes("/proc/meminfo", "MemTotal:"),
            governor: fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .ok()
                .map(|text| text.trim().to_string()),
            load_average: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse().ok()),
        }
    }
}

/// Processor time of this process, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// Since the process started.
    pub(crate) fn now() -> Self {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        getrusage(UsageWho::RUSAGE_SELF).map_or(Cpu::default(), |usage| Cpu {
            user: seconds(usage.user_time()),
            system: seconds(usage.system_time()),
        })
    }

    /// User and system together.
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu { user: self.user - before.user, system: self.system - before.system }
    }
}

/// Processor time of the whole machine since it started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MachineTime {
    /// What the hypervisor gave to others while there was something to run here.
    stolen: u64,
    /// All of it, idle or not.
    all: u64,
}

impl MachineTime {
    /// Until now. Where the kernel does not tell, nothing is stolen.
    pub(crate) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are part of user and nice.
    fn parse(stat: &str) -> Self {
        const STEAL: usize = 7;
        let fields = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let ticks: Vec<u64> =
            fields.unwrap_or_default().split_whitespace().map_while(|field| field.parse().ok()).collect();
        MachineTime {
            stolen: ticks.get(STEAL).copied().unwrap_or(0),
            all: ticks.iter().take(STEAL + 1).sum(),
        }
    }

    /// The share of the processor time since then that the hypervisor gave to others: 0 to 1.
    pub(crate) fn stolen_since(self, before: MachineTime) -> f64 {
        let all = self.all.saturating_sub(before.all);
        self.stolen.saturating_sub(before.stolen) as f64 / all.max(1) as f64
    }
}

/// The most memory that this process has had so far, in bytes.
pub(crate) fn memory_peak() -> u64 {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// The memory that this process has now, in bytes.
pub(crate) fn memory_now() -> u64 {
    kibibytes("/proc/self/status", "VmRSS:")
}

/// A line like "VmHWM:   1234 kB" of a file under /proc, in bytes.
fn kibibytes(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok());
    value.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::MachineTime;

    #[test]
    fn the_share_that_was_stolen_is_of_all_time_between() {
        let before = MachineTime::parse("cpu  100 0 50 800 10 0 5 35 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        let after = MachineTime::parse("cpu  150 0 70 800 10 0 5 65 9 0\n");
        assert_eq!((before.all, before.stolen), (1000, 35), "guests are counted already");
        assert!((after.stolen_since(before) - 0.3).abs() < 1e-9);
        assert_eq!(MachineTime::parse("").stolen_since(MachineTime::default()), 0.0);
        assert!(MachineTime::now().all > 0);
    }
}
