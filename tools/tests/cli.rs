//! The command as users meet it: exit codes, messages, and short runs from end to end.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn quipu() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quipu"))
}

/// A folder on the disk of the build: the system's folder for temporary files may be in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A run that is short and small, in this folder.
fn short(path: &Path) -> Command {
    let mut command = quipu();
    command.args([
        "bench",
        "--warmup",
        "0.1s",
        "--seconds",
        "0.6",
        "--keys",
        "20000",
        "--directories",
        "200",
    ]);
    command.args(["--in-flight", "64", "--shards", "2", "--memtable-bytes", "64MiB", "--path"]).arg(path);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code 2, and a message that names what is wrong.
fn refused(output: &Output, named: &str) {
    assert_eq!(output.status.code(), Some(2), "{}", stderr(output));
    assert!(stderr(output).contains(named), "{named:?} is not named in: {}", stderr(output));
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn unknown_options_and_values_are_refused() {
    refused(&quipu().arg("--no-such-option").output().unwrap(), "--no-such-option");
    refused(&quipu().arg("no-such-command").output().unwrap(), "no-such-command");
    for (option, value) in [
        ("--seconds", "0"),
        ("--seconds", "soon"),
        ("--in-flight", "0"),
        ("--keys", "0"),
        ("--value-bytes", "8"),
        ("--value-bytes", "1GiB"),
        ("--durability", "perhaps"),
        ("--retention", "last:x"),
        ("--phases", "lunch"),
        ("--io", "tape"),
    ] {
        refused(&quipu().args(["bench", option, value]).output().unwrap(), option);
    }
}

#[test]
fn options_that_the_engine_refuses_leave_nothing_behind() {
    let folder = folder();
    refused(&short(folder.path()).args(["--divisor", "1"]).output().unwrap(), "divisor");
    assert!(is_empty(folder.path()));
    let json = folder.path().join("no-such-folder/report.json");
    refused(&short(&folder.path().join("new")).arg("--json").arg(&json).output().unwrap(), "report.json");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_data_folder_that_is_a_file_is_named_and_left_alone() {
    let folder = folder();
    let file = folder.path().join("a-file");
    fs::write(&file, b"mine").unwrap();
    refused(&short(&file).output().unwrap(), "a-file");
    refused(&quipu().arg("inspect").arg(&file).output().unwrap(), "a-file");
    refused(&quipu().arg("verify").arg(&file).output().unwrap(), "a-file");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

/// Nobody, the superuser included, can make a folder under /proc.
#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    refused(&short(Path::new("/proc/quipu-cannot-be-here")).output().unwrap(), "quipu-cannot-be-here");
}

#[test]
fn inspecting_never_creates() {
    let folder = folder();
    let missing = folder.path().join("missing");
    for command in ["inspect", "verify"] {
        refused(&quipu().arg(command).arg(&missing).output().unwrap(), "missing");
        refused(&quipu().arg(command).arg(folder.path()).output().unwrap(), folder.path().to_str().unwrap());
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn a_run_verifies_what_was_acknowledged_and_reports_it() {
    let folder = folder();
    let (data, json) = (folder.path().join("data"), folder.path().join("report.json"));
    let output = short(&data).args(["--seed", "7", "--json"]).arg(&json).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    for word in
        ["commits", "commits-async", "mix", "p99.99", "slowest second", "recovery", "all as acknowledged"]
    {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!data.exists(), "the data is removed");

    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["options"]["seed"], 7);
    assert_eq!(report["engine"]["shards"], 2);
    assert_eq!(report["interrupted"], false);
    let phases = report["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["commits", "commits-async", "mix"]);
    for phase in phases {
        assert_eq!(phase["wrong_reads"], 0);
        let operations = phase["operations"].as_array().unwrap();
        assert_eq!(operations.len(), if phase["name"] == "mix" { 3 } else { 1 });
        for operation in operations {
            let latency = &operation["latency_ns"];
            assert!(latency["samples"].as_u64().unwrap() > 0);
            let percentiles = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
            assert!(percentiles.map(|name| latency[name].as_u64().unwrap()).is_sorted(), "{latency}");
        }
    }
    let verification = &report["verification"];
    assert_eq!(verification["keys"], 20000);
    assert!(verification["acknowledged"].as_u64().unwrap() > 0);
    assert_eq!(verification["wrong"], 0);
    assert!(report["recovery"]["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn kept_data_can_be_inspected_and_verified() {
    let folder = folder();
    let output = short(folder.path()).args(["--keep", "--phases", "commits"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let kept = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let inspected = quipu().arg("inspect").arg(&kept).output().unwrap();
    assert_eq!(inspected.status.code(), Some(0), "{}", stderr(&inspected));
    for word in ["shard 0", "shard 1", "tenant-000000", "perhaps more"] {
        assert!(stdout(&inspected).contains(word), "{word:?} is not in: {}", stdout(&inspected));
    }
    let verified = quipu().arg("verify").arg(&kept).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    for word in ["files, ", "; 0 damaged", "200 directories"] {
        assert!(stdout(&verified).contains(word), "{word:?} is not in: {}", stdout(&verified));
    }
    // Padding that no read looks at.
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("base-") || name.starts_with("segment-")
    };
    let mut shard = fs::read_dir(kept.join("shard-0000")).unwrap().map(|entry| entry.unwrap().path());
    let Some(file) = shard.find(is_segment) else { return };
    let mut bytes = fs::read(&file).unwrap();
    bytes[4095] ^= 1;
    fs::write(&file, bytes).unwrap();
    let verified = quipu().arg("verify").arg(&kept).output().unwrap();
    assert_eq!(verified.status.code(), Some(1), "{}", stdout(&verified));
    assert!(stderr(&verified).contains("1 files are damaged"), "{}", stderr(&verified));
    assert!(stdout(&verified).contains(file.file_name().unwrap().to_str().unwrap()), "{}", stdout(&verified));
}

#[test]
fn few_keys_and_directories_do() {
    let folder = folder();
    let output = short(folder.path()).args(["--keys", "3", "--directories", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(
        stdout(&output).contains("3 keys, 3 of them written: all as acknowledged"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn an_interrupt_ends_with_the_report_so_far() {
    let folder = folder();
    let json = folder.path().join("report.json");
    let data = folder.path().join("data");
    let mut command = short(&data);
    command.args(["--seconds", "120", "--phases", "commits", "--json"]).arg(&json);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.starts_with("commits ")), "a line of progress");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(rest.iter().any(|line| line.contains("p99.99")), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    assert!(report["phases"][0]["rate"].as_f64().unwrap() > 0.0);
    assert!(!data.exists(), "the data is removed");
}
