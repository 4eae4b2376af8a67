//! A flame graph of a run: where the threads spend their time.
//!
//! Stacks are sampled by `perf`, where it is there and allowed, by the clock of each thread (`cpu-clock`: virtual machines
//! often have no cycle counters), the kernel's frames included; else by the `pprof` crate, from a signal handler in this
//! process, without the kernel's. Either way the binary has to keep frame pointers, see `docs/profiling.md`. `inferno`
//! folds and draws.

use crate::failure::Failure;
use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Samples a second of a thread that runs all the time. Not a round number, so as not to march in step with anything.
const FREQUENCY: u16 = 499;
/// How long `perf` gets to attach, or to say that it cannot.
const ATTACH: Duration = Duration::from_millis(400);

/// Samples this process from its making until [`Sampler::draw`].
pub(crate) struct Sampler {
    how: How,
    /// Why `perf` is not used, if it is not.
    pub(crate) fallback: Option<String>,
}

enum How {
    Perf { recorder: Child, recording: PathBuf },
    InProcess(pprof::ProfilerGuard<'static>),
}

impl Sampler {
    /// Starts sampling.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`], where neither way works.
    pub(crate) fn start() -> Result<Self, Failure> {
        let recording = std::env::temp_dir().join(format!("quipu-{}.perf", std::process::id()));
        match record(&recording) {
            Ok(recorder) => Ok(Sampler { how: How::Perf { recorder, recording }, fallback: None }),
            Err(why) => {
                let guard = pprof::ProfilerGuardBuilder::default().frequency(FREQUENCY.into()).build();
                let guard = guard.map_err(|error| {
                    Failure::run(format!(
                        "--flamegraph: perf cannot be used ({why}), and pprof neither: {error}"
                    ))
                })?;
                Ok(Sampler { how: How::InProcess(guard), fallback: Some(why) })
            }
        }
    }

    /// Ends the sampling and draws into `file`. Answers how the samples were taken, in words.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`], where there are no samples, or `file` cannot be written.
    pub(crate) fn draw(self, file: &File, title: &str) -> Result<String, Failure> {
        let failed = |error: io::Error| Failure::run(format!("--flamegraph: {error}"));
        let (folded, how) = match self.how {
            How::Perf { recorder, recording } => {
                let folded = stop(recorder).and_then(|()| fold(&recording));
                let _ = fs::remove_file(&recording);
                (folded.map_err(failed)?, "perf")
            }
            How::InProcess(guard) => {
                let report = guard.report().build();
                let report = report.map_err(|error| failed(io::Error::other(error)))?;
                (lines_of(&report), "pprof, without the kernel's part")
            }
        };
        let count = samples(&folded);
        if count == 0 {
            return Err(Failure::run("--flamegraph: no samples were taken; was the run too short?"));
        }
        let mut options = flamegraph::Options::default();
        options.title = title.to_string();
        options.count_name = "samples".to_string();
        let mut file = BufWriter::new(file);
        flamegraph::from_reader(&mut options, &folded[..], &mut file).map_err(failed)?;
        file.flush().map_err(failed)?;
        Ok(format!("{count} samples by {how}"))
    }
}

/// Attaches `perf` to this process. What it prints where it fails is the error.
fn record(recording: &Path) -> Result<Child, String> {
    let started = Command::new("perf")
        .args(["record", "--event", "cpu-clock", "--call-graph", "fp", "--freq", &FREQUENCY.to_string()])
        .args(["--pid", &std::process::id().to_string(), "--output"])
        .arg(recording)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut recorder = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "it is not installed".to_string(),
        _ => error.to_string(),
    })?;
    thread::sleep(ATTACH);
    match recorder.try_wait() {
        Ok(None) => Ok(recorder),
        Ok(Some(_)) | Err(_) => {
            let told = recorder.wait_with_output().map(|output| output.stderr).unwrap_or_default();
            let told = String::from_utf8_lossy(&told);
            let first = told.lines().map(str::trim).find(|line| !line.is_empty() && *line != "Error:");
            Err(first.unwrap_or("it ended at once").to_string())
        }
    }
}

/// Ends a recording.
fn stop(recorder: Child) -> io::Result<()> {
    let pid = Pid::from_raw(recorder.id().cast_signed());
    kill(pid, Signal::SIGINT).map_err(io::Error::from)?;
    // It ends by that signal once all is written, so its status says nothing.
    recorder.wait_with_output().map(drop)
}

/// A recording as folded stacks: a line each, frames parted by semicolons, then how often it was seen.
fn fold(recording: &Path) -> io::Result<Vec<u8>> {
    let mut script = Command::new("perf")
        // No periods: a sample counts one.
        .args(["script", "--fields", "comm,pid,tid,time,event,ip,sym,dso", "--input"])
        .arg(recording)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut folded = Vec::new();
    if let Some(stdout) = script.stdout.take() {
        Folder::default().collapse(BufReader::new(stdout), &mut folded)?;
    }
    let status = script.wait()?;
    if status.success() {
        Ok(folded)
    } else {
        Err(io::Error::other(format!("perf script ended with {status}")))
    }
}

/// The same of what was sampled in this process.
fn lines_of(report: &pprof::Report) -> Vec<u8> {
    let mut folded = Vec::new();
    for (frames, count) in &report.data {
        folded.extend_from_slice(frames.thread_name_or_id().as_bytes());
        for symbol in frames.frames.iter().rev().flat_map(|inlined| inlined.iter().rev()) {
            folded.push(b';');
            folded.extend(symbol.name().bytes().map(|byte| if byte == b';' { b':' } else { byte }));
        }
        folded.extend_from_slice(format!(" {count}\n").as_bytes());
    }
    folded
}

/// How many samples folded stacks stand for.
fn samples(folded: &[u8]) -> u64 {
    let count = |line: &[u8]| {
        let at = line.iter().rposition(|&byte| byte == b' ')?;
        std::str::from_utf8(&line[at + 1..]).ok()?.parse::<u64>().ok()
    };
    folded.split(|&byte| byte == b'\n').filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_numbers_at_the_ends_of_lines() {
        assert_eq!(samples(b""), 0);
        assert_eq!(samples(b"quipu-shard-0;main;f <T as U> 12\nquipu-shard-1;main 30\nnonsense\n"), 42);
    }
}
