//! The tester tested: plants one known bug after another in a copy of the source, and sees that the simulator finds each.
//!
//! A bug is a patch in `bugs/`: a header of a sentence or two, which says what is wrong and which promise that breaks,
//! and a small diff. So the engine's source holds none of them.
//!
//! 1. The working tree is copied to a scratch folder beside the build, which has a build of its own: after the first,
//!    only what a patch touches is compiled again (profile `planted`).
//! 2. The copy as it is must run clean for a few seconds.
//! 3. Each patch is applied to the copy, the simulator built, and run on fresh seeds until it fails, or has used up its
//!    core-minutes. Then the patched files are put back.
//!
//! Promises: nothing outside the scratch folder is written. A patch that does not apply or does not build is an error that
//! names it, not a bug that was found. A process that dies has found nothing either, since it names no seed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// For so many core-seconds the copy without a bug must run clean.
const CLEAN_CORE_SECONDS: u64 = 10;
/// How much of a failed build is shown.
const LINES_SHOWN: usize = 25;

/// A bug to be planted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bug {
    /// The patch's file name, without its ending.
    pub name: String,
    /// What is wrong, and which promise that breaks.
    pub header: String,
    /// The patch.
    pub patch: PathBuf,
}

/// What a run of the simulator said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Said {
    /// How many seeds it ran.
    pub seeds: u64,
    /// What the oracle said, and of which seed.
    pub failure: Option<String>,
}

/// Why bugs cannot be planted.
#[derive(Debug)]
pub struct Trouble(String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Trouble {}

// What is decided without any I/O.

/// A patch's header: what stands before the diff, as one line. `None` where nothing does.
pub fn header_of(patch: &str) -> Option<String> {
    let lines = patch.lines().take_while(|line| !line.starts_with("--- ")).map(str::trim);
    let header = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    (!header.is_empty()).then_some(header)
}

/// What the simulator printed, read back.
pub fn read_back(printed: &str) -> Said {
    let mut said = Said::default();
    for line in printed.lines() {
        if let Some(rest) = line.strip_prefix("FAILED: ") {
            said.failure.get_or_insert(rest.to_string());
        } else if let Some((seeds, _)) = line.split_once(" seeds from ") {
            said.seeds = seeds.parse().unwrap_or(said.seeds);
        }
    }
    said
}

/// The line that tells of a bug.
fn line(name: &str, said: &Said, core_seconds: f64) -> String {
    let (found, what) = match &said.failure {
        Some(failure) => ("found", failure.as_str()),
        None => ("NOT FOUND", ""),
    };
    format!("{found:<9}  {name:<34} {:>6} seeds {core_seconds:>7.1} core-s  {what}", said.seeds)
}

// What needs the disk, git and cargo.

/// The root of the repository that this was built from.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All bugs, by name.
///
/// # Errors
///
/// Where a patch cannot be read, or has no header.
pub fn bugs() -> Result<Vec<Bug>, Trouble> {
    let folder = repository().join("tools/simulator/bugs");
    let failed = |error: io::Error| Trouble(format!("{}: {error}", folder.display()));
    let mut bugs = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let patch = entry.map_err(failed)?.path();
        let text = std::fs::read_to_string(&patch).map_err(failed)?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let header = header_of(&text).ok_or_else(|| Trouble(format!("{name}: the patch has no header")))?;
        bugs.push(Bug { name, header, patch });
    }
    bugs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bugs)
}

/// A command of git that does not find a repository at or above `ceiling`'s children.
fn git(folder: &Path, ceiling: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder).env("GIT_CEILING_DIRECTORIES", ceiling);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    git
}

fn run(command: &mut Command, what: &str) -> Result<Output, Trouble> {
    let output = command.output().map_err(|error| Trouble(format!("{what}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    Err(Trouble(format!("{what}: {}\n{shown}", output.status)))
}

/// What the children of this process have used of the cores so far, in seconds.
fn core_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    usage.map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The copy of the working tree.
struct Scratch {
    repository: PathBuf,
    source: PathBuf,
    target: PathBuf,
}

impl Scratch {
    fn new(folder: Option<&Path>) -> Result<Scratch, Trouble> {
        let failed = |error: io::Error| Trouble(format!("the scratch folder: {error}"));
        let repository = repository().canonicalize().map_err(failed)?;
        let folder = folder.map_or_else(|| repository.join("target/planted"), Path::to_path_buf);
        std::fs::create_dir_all(folder.join("source")).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        Ok(Scratch { source: folder.join("source"), target: folder.join("build"), repository })
    }

    /// Makes the copy what the working tree is. A file that is so already is not touched, so that nothing is built twice.
    fn copy(&self) -> Result<(), Trouble> {
        let mut list = Command::new("git");
        list.current_dir(&self.repository);
        list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = run(&mut list, "git ls-files (the source must be a git checkout)")?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            let failed = |error: io::Error| Trouble(format!("copying {name}: {error}"));
            let (from, to) = (self.repository.join(name), self.source.join(name));
            // Deleted, and not committed so.
            let Ok(bytes) = std::fs::read(&from) else { continue };
            if std::fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            to.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
            std::fs::write(&to, bytes).map_err(failed)?;
        }
        Ok(())
    }

    fn apply(&self, bug: &Bug) -> Result<(), Trouble> {
        let ceiling = self.source.parent().unwrap_or(&self.source);
        run(git(&self.source, ceiling).arg("apply").arg(&bug.patch), &format!("applying {}", bug.name))?;
        Ok(())
    }

    fn build(&self, name: &str) -> Result<(), Trouble> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.source).env("CARGO_TARGET_DIR", &self.target);
        cargo.args([
            "build",
            "--locked",
            "--profile",
            "planted",
            "-p",
            "quipu-simulator",
            "--bin",
            "simulator",
        ]);
        run(&mut cargo, &format!("building {name}")).map(drop)
    }

    /// Runs the simulator that was built. Answers what it said, and the core-seconds that took.
    fn search(&self, core_seconds_max: u64) -> Result<(Said, f64), Trouble> {
        let before = core_seconds();
        let mut simulator = Command::new(self.target.join("planted/simulator"));
        simulator
            .args(["--quiet", "--shrink-seconds", "0", "--core-seconds"])
            .arg(core_seconds_max.to_string());
        let output = simulator.output().map_err(|error| Trouble(format!("the simulator: {error}")))?;
        Ok((read_back(&String::from_utf8_lossy(&output.stdout)), core_seconds() - before))
    }
}

/// Plants the bugs whose names contain one of `named` (all of them, without), and prints a line for each. Answers how many
/// were not found within so many core-minutes. The copy and its build lie in `scratch`, or under the target folder.
///
/// # Errors
///
/// Where the source is no git checkout; where a patch does not apply or does not build; where the source fails without a bug.
pub fn plant(named: &[String], core_minutes: u64, scratch: Option<&Path>) -> Result<usize, Trouble> {
    let mut bugs = bugs()?;
    bugs.retain(|bug| named.is_empty() || named.iter().any(|named| bug.name.contains(named)));
    if bugs.is_empty() {
        return Err(Trouble("there is no such bug".into()));
    }
    let scratch = Scratch::new(scratch)?;
    scratch.copy()?;
    println!("building without a bug, in {}", scratch.source.display());
    scratch.build("without a bug")?;
    let (said, took) = scratch.search(CLEAN_CORE_SECONDS)?;
    if let Some(failure) = said.failure {
        return Err(Trouble(format!("without a bug: {failure}")));
    }
    println!("{:<9}  {:<34} {:>6} seeds {took:>7.1} core-s", "clean", "without a bug", said.seeds);
    let (mut missed, mut longest, mut searched) = (0, Duration::ZERO, 0.0);
    for bug in &bugs {
        scratch.copy()?;
        scratch.apply(bug)?;
        let began = Instant::now();
        scratch.build(&bug.name)?;
        longest = longest.max(began.elapsed());
        let (said, took) = scratch.search(core_minutes * 60)?;
        missed += usize::from(said.failure.is_none());
        searched += took;
        println!("{}", line(&bug.name, &said, took));
    }
    scratch.copy()?;
    println!(
        "{} of {} bugs found, in {searched:.0} core-seconds; the longest build took {:.0} s",
        bugs.len() - missed,
        bugs.len(),
        longest.as_secs_f64()
    );
    Ok(missed)
}
