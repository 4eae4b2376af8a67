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
        ("--rate", "0"),
        ("--rate", "fast"),
        ("--sweep", "lowest"),
        ("--key-bytes", "8"),
        ("--value-bytes", "200-100"),
        ("--key-distribution", "zipfian:-1"),
        ("--directory-distribution", "hot-shard:2"),
        ("--writes", "101"),
        ("--batch", "0"),
        ("--scan-entries", "0"),
        ("--clients", "martians"),
        ("--blocking-threads", "0"),
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

/// Where nothing can be mounted, not even in a namespace of its own, this does nothing, and says so.
#[test]
fn a_read_only_file_system_is_refused_with_what_to_do() {
    let folder = folder();
    assert_eq!(short(folder.path()).arg("--keep").output().unwrap().status.code(), Some(0));
    let read_only = |arguments: &Command| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        let mounts = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 77; exec "$@""#;
        command.arg(mounts).arg(folder.path()).arg(arguments.get_program()).args(arguments.get_args());
        command.output().ok().filter(|output| output.status.code() != Some(77))
    };
    // Also where namespaces are forbidden altogether.
    if !read_only(&Command::new("true")).is_some_and(|output| output.status.success()) {
        return println!("skipped, since nothing can be mounted here");
    }
    let mut kept = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let engine = kept.find(|path| path.join("QUIPU").exists()).unwrap_or(folder.path().to_path_buf());
    for command in ["inspect", "verify"] {
        refused(&read_only(quipu().arg(command).arg(&engine)).unwrap(), "mount it for writing");
    }
    refused(&read_only(&short(folder.path())).unwrap(), "Read-only file system");
    assert_eq!(quipu().arg("verify").arg(&engine).output().unwrap().status.code(), Some(0));
}

#[test]
fn a_run_verifies_what_was_acknowledged_and_reports_it() {
    let folder = folder();
    let (data, json) = (folder.path().join("data"), folder.path().join("report.json"));
    let mut command = short(&data);
    command.args(["--seed", "7", "--json"]).arg(&json);
    let expected =
        ["commits commit", "commits-async commit", "mix commit", "mix read", "mix scan"].map(String::from);
    let (text, report) = complete(command, &json, 0.6, &expected);
    for word in
        ["commits", "commits-async", "mix", "p99.99", "slowest second", "recovery", "all as acknowledged"]
    {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!data.exists(), "the data is removed");

    assert_eq!(report["options"]["seed"], 7);
    assert_eq!(report["engine"]["shards"], 2);
    assert_eq!(report["interrupted"], false);
    for phase in report["phases"].as_array().unwrap() {
        assert_eq!(phase["wrong_reads"], 0);
        for operation in phase["operations"].as_array().unwrap() {
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
    // Loaded, so that each of the keys is there, however few commits the disk has time for.
    let few = ["--keep", "--load", "--phases", "commits", "--keys", "200", "--directories", "20"];
    let output = short(folder.path()).args(few).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let kept = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let inspected = quipu().arg("inspect").arg(&kept).output().unwrap();
    assert_eq!(inspected.status.code(), Some(0), "{}", stderr(&inspected));
    for word in ["shard 0", "shard 1", "tenant-000000", "perhaps more"] {
        assert!(stdout(&inspected).contains(word), "{word:?} is not in: {}", stdout(&inspected));
    }
    let verified = quipu().arg("verify").arg(&kept).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    for word in ["files, ", "; 0 damaged", "200 entries in 20 directories"] {
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
    assert!(stderr(&verified).contains("1 damaged file,"), "{}", stderr(&verified));
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
    // In a second without any, the line has no latency.
    let with_commits = |line: String| line.starts_with("commits ") && !line.contains("p99 -");
    assert!(lines.by_ref().any(with_commits), "a line of progress");
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

/// Runs a command until its report has these operations, each as "phase operation"; there must be no others.
/// Answers what it printed, and the report. A closed loop reports what ended in the time measured: where the disk
/// stands still for that long, something is missing. Then the command runs again, for twice as long.
fn complete(mut command: Command, json: &Path, mut seconds: f64, expected: &[String]) -> (String, Value) {
    let mut found = Vec::new();
    for _ in 0..5 {
        let output = command.args(["--seconds", &seconds.to_string()]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
        let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        found = operations(&report);
        if expected.iter().all(|name| found.contains(name)) {
            assert_eq!(found, expected);
            return (stdout(&output), report);
        }
        seconds *= 2.0;
    }
    panic!("not all of {expected:?} among {found:?}, for however long it ran")
}

/// The operations of all phases, each as "phase operation".
fn operations(report: &Value) -> Vec<String> {
    let phases = report["phases"].as_array().unwrap().iter();
    let operations = phases.flat_map(|phase| {
        let name = phase["name"].as_str().unwrap();
        let operations = phase["operations"].as_array().unwrap().iter();
        operations.map(move |operation| format!("{name} {}", operation["operation"].as_str().unwrap()))
    });
    operations.collect()
}

/// The report of a run with these operations, as [`complete`] makes it; it must verify.
fn report_of(path: &Path, seconds: f64, arguments: &[&str], expected: &[String]) -> Value {
    let json = path.join("report.json");
    let mut command = short(&path.join("data"));
    command.args(["--keys", "5000", "--directories", "50"]).args(arguments).arg("--json").arg(&json);
    let (_, report) = complete(command, &json, seconds, expected);
    assert_eq!(report["verification"]["wrong"], 0, "{report}");
    assert!(report["phases"].as_array().unwrap().iter().all(|phase| phase["wrong_reads"] == 0));
    report
}

#[test]
fn every_workload_runs_and_verifies() {
    let folder = folder();
    let all = "ingest,reads,reads-absent,scans,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f,tenants,as-of";
    let expected = [
        "ingest batch",
        "reads read",
        "reads-absent absent",
        "scans scan",
        "ycsb-a commit",
        "ycsb-a read",
        "ycsb-b commit",
        "ycsb-b read",
        "ycsb-c read",
        "ycsb-d insert",
        "ycsb-d read",
        "ycsb-e insert",
        "ycsb-e scan",
        "ycsb-f read",
        "ycsb-f rmw",
        "tenants insert",
        "tenants newest",
        "as-of as-of",
    ];
    let arguments = ["--warmup", "0.6", "--phases", all];
    let report = report_of(folder.path(), 2.4, &arguments, &expected.map(String::from));
    // The load put every key, and inserts came on top.
    assert_eq!(report["load"]["found"]["puts"], 5000);
    assert!(report["verification"]["keys"].as_u64().unwrap() > 5000);
    assert_eq!(report["options"]["key_order"], "ordered");
    // All keys are there: every read finds one, every scan of the newest 20.
    let phase =
        |name: &str| report["phases"].as_array().unwrap().iter().find(|phase| phase["name"] == name).unwrap();
    let samples = |phase: &Value, name: &str| {
        let mut operations = phase["operations"].as_array().unwrap().iter();
        let operation = operations.find(|operation| operation["operation"] == name).unwrap();
        operation["latency_ns"]["samples"].as_u64().unwrap()
    };
    let (reads, tenants) = (phase("reads"), phase("tenants"));
    assert_eq!(reads["found"]["values"].as_u64().unwrap(), samples(reads, "read"));
    assert_eq!(tenants["found"]["entries"].as_u64().unwrap(), 20 * samples(tenants, "newest"));
}

#[test]
fn every_kind_of_client_runs_every_sort_of_operation() {
    for clients in ["async", "blocking"] {
        let folder = folder();
        let phases = "ycsb-f,ycsb-e,tenants,as-of,ingest,reads-absent";
        let expected = [
            ("ycsb-f", "read"),
            ("ycsb-f", "rmw"),
            ("ycsb-e", "insert"),
            ("ycsb-e", "scan"),
            ("tenants", "insert"),
            ("tenants", "newest"),
            ("as-of", "as-of"),
            ("ingest", "batch"),
            ("reads-absent", "absent"),
        ];
        let expected = expected.map(|(phase, operation)| format!("{phase}-{clients} {operation}"));
        let arguments = ["--clients", clients, "--blocking-threads", "8", "--phases", phases];
        let report = report_of(folder.path(), 1.2, &arguments, &expected);
        for phase in report["phases"].as_array().unwrap() {
            assert_eq!(phase["clients"], clients);
            assert!(phase["rate"].as_f64().unwrap() > 0.0, "{}", phase["name"]);
        }
    }
}

#[test]
fn distributions_batches_and_sizes_can_be_chosen() {
    let folder = folder();
    let expected = [
        "commits batch",
        "commits read",
        "mix-async batch",
        "mix-async read",
        "mix-async scan",
        "tenants insert",
        "tenants newest",
    ];
    report_of(
        folder.path(),
        0.6,
        &[
            "--phases",
            "commits,mix-async,tenants",
            "--batch",
            "7",
            "--value-bytes",
            "20-300",
            "--key-bytes",
            "33",
            "--key-distribution",
            "zipfian:1.3",
            "--directory-distribution",
            "zipfian",
            "--writes",
            "70%",
            "--scan-entries",
            "5",
        ],
        &expected.map(String::from),
    );
    let hot = report_of(
        folder.path(),
        0.4,
        &[
            "--phases",
            "commits,mix-async",
            "--directory-distribution",
            "hot-shard:0.95",
            "--key-distribution",
            "sequential",
        ],
        &["commits commit", "mix-async commit", "mix-async read", "mix-async scan"].map(String::from),
    );
    assert_eq!(hot["phases"][0]["recipe"]["directories"], "hot-shard:0.95");
}

#[test]
fn an_open_loop_reports_response_service_and_lag() {
    for (clients, name) in [("on-core", "mix"), ("async", "mix-async"), ("blocking", "mix-blocking")] {
        let folder = folder();
        let report = report_of(
            folder.path(),
            0.4,
            &["--phases", "mix", "--rate", "2k", "--clients", clients, "--arrivals", "constant"],
            &["commit", "read", "scan"].map(|operation| format!("{name} {operation}")),
        );
        let phase = &report["phases"][0];
        assert_eq!(phase["offered"]["rate"], 2000.0);
        assert!(phase["in_flight"].is_null());
        assert!(phase["lag_ns"]["samples"].as_u64().unwrap() > 0);
        let mut samples = phase["unstarted"].as_u64().unwrap();
        for operation in phase["operations"].as_array().unwrap() {
            let [response, service] = ["latency_ns", "service_ns"].map(|which| &operation[which]);
            assert_eq!(response["samples"], service["samples"]);
            assert!(response["p50"].as_u64() >= service["p50"].as_u64(), "{operation}");
            samples += response["samples"].as_u64().unwrap();
        }
        // Every arrival in the time measured is counted, whether or not it ended in time.
        let arrivals = 2000.0 * report["options"]["seconds"].as_f64().unwrap();
        assert!((samples as f64 - arrivals).abs() < 2.5, "{clients}: {samples} of {arrivals}");
    }
}

/// What no engine sustains is told as such, and does not hang.
#[test]
fn too_high_a_rate_leaves_operations_unstarted() {
    let folder = folder();
    let report = report_of(
        folder.path(),
        0.4,
        &["--phases", "commits", "--warmup", "0", "--rate", "50M", "--in-flight-max", "100"],
        &["commits commit".to_string()],
    );
    let phase = &report["phases"][0];
    assert!(phase["unstarted"].as_u64().unwrap() > 10_000_000);
    // A latency begins when the operation was to start: the wait until it does is part of it.
    let (commits, max) = (&phase["operations"][0], |times: &Value| times["max"].as_u64().unwrap());
    let latency = max(&commits["latency_ns"]);
    assert!(latency >= max(&commits["service_ns"]) && latency >= max(&phase["lag_ns"]), "{commits}");
    // With so many in flight, the next one waits until some are done.
    assert!(max(&phase["lag_ns"]) > commits["service_ns"]["min"].as_u64().unwrap() / 2, "{commits}");
}

#[test]
fn a_sweep_finds_a_rate_and_runs_at_shares_of_it() {
    let folder = folder();
    let html = folder.path().join("report.html");
    let report = report_of(
        folder.path(),
        0.4,
        &["--phases", "reads", "--sweep", "highest", "--step", "0.5s", "--html", html.to_str().unwrap()],
        &["reads 50% read", "reads 80% read", "reads 95% read"].map(String::from),
    );
    let sweep = &report["sweeps"][0];
    assert!(sweep["points"].as_array().unwrap().len() >= 2);
    assert!(sweep["points"][0]["offered"].is_null(), "a closed loop comes first");
    let found = sweep["found"].as_f64().unwrap();
    let shares: Vec<f64> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["offered"]["rate"].as_f64().unwrap() / found)
        .collect();
    assert_eq!(shares.len(), 3);
    assert!(shares.iter().zip([0.5, 0.8, 0.95]).all(|(got, share)| (got - share).abs() < 0.01), "{shares:?}");
    assert!(fs::read_to_string(html).unwrap().contains("Latency against rate"));
}

#[test]
fn a_page_and_histograms_are_written() {
    let folder = folder();
    let (html, histograms) = (folder.path().join("report.html"), folder.path().join("histograms"));
    let outputs = ["--html", html.to_str().unwrap(), "--histograms", histograms.to_str().unwrap()];
    let report = report_of(
        folder.path(),
        1.3,
        &[&["--phases", "mix", "--rate", "3k", "--load"][..], &outputs].concat(),
        &["mix commit", "mix read", "mix scan"].map(String::from),
    );

    let page = fs::read_to_string(html).unwrap();
    // Nothing is fetched: the only addresses are the names of XML's own formats.
    let addresses: Vec<&str> =
        page.match_indices("http").map(|(at, _)| &page[at..(at + 26).min(page.len())]).collect();
    assert!(addresses.iter().all(|address| address.starts_with("http://www.w3.org/")), "{addresses:?}");
    assert!(!page.contains("<script") && !page.contains("<link"));
    assert_eq!(page.matches("<svg").count(), 2 * 3, "three plots for the load and for the mix");
    well_formed(&page);

    // The total of a distribution is the number of samples, its last value the maximum.
    let operation = &report["phases"][0]["operations"][0];
    let hgrm = fs::read_to_string(histograms.join("mix-commit.hgrm")).unwrap();
    let last = hgrm.lines().rfind(|line| !line.starts_with('#')).unwrap();
    let cells: Vec<f64> = last.split_whitespace().map(|cell| cell.parse().unwrap()).collect();
    assert_eq!(cells[2], operation["latency_ns"]["samples"].as_f64().unwrap());
    assert!((cells[0] * 1e6 / operation["latency_ns"]["max"].as_f64().unwrap() - 1.0).abs() < 0.002);
    assert!(histograms.join("mix-commit-service.hgrm").exists());

    // So are the samples of all seconds together.
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let log = fs::read(histograms.join("mix.hlog")).unwrap();
    let mut commits = hdrhistogram::Histogram::<u64>::new(3).unwrap();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap()
            && interval.tag().is_some_and(|tag| tag.as_str() == "commit")
        {
            let bytes = base64(interval.encoded_histogram());
            let mut deserializer = hdrhistogram::serialization::Deserializer::new();
            let histogram: hdrhistogram::Histogram<u64> = deserializer.deserialize(&mut &bytes[..]).unwrap();
            commits.add(histogram).unwrap();
        }
    }
    assert_eq!(commits.len(), operation["latency_ns"]["samples"].as_u64().unwrap());
}

/// Base64, as interval logs have it.
fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bits =
        text.bytes().filter(|&c| c != b'=').flat_map(|c| (0..6).rev().map(move |bit| digit(c) >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

/// Every element that is opened is closed, in order. The page is written so that it is XML too.
fn well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once('\n').unwrap().1;
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{}", &tag[..tag.len().min(60)]));
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (false, true) => {}
            (false, false) => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn two_reports_are_compared_as_ratios() {
    let folder = folder();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(format!("{name}.json")));
    for (path, seed) in [(&a, "1"), (&b, "2")] {
        let mut run = short(&folder.path().join("data"));
        // The load is in every report, however few commits the disk has time for.
        run.args(["--load", "--phases", "commits", "--seconds", "0.2", "--seed", seed, "--json"]).arg(path);
        assert_eq!(run.output().unwrap().status.code(), Some(0));
    }
    let compare = |a: &Path, b: &Path| quipu().args(["bench", "compare"]).args([a, b]).output().unwrap();
    let output = compare(&a, &b);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for word in ["load", "batch", "p99.9", "b/a", "differs: seed: 1 / 2"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(stdout(&compare(&a, &a)).contains("1.00"));
    // What is no report is named.
    refused(&compare(&a, &folder.path().join("missing.json")), "missing.json");
    fs::write(&b, b"{}").unwrap();
    refused(&compare(&a, &b), "b.json");
    fs::write(&b, br#"{"format": 1, "phases": []}"#).unwrap();
    refused(&compare(&a, &b), "format 1");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let folder = folder();
    for (arguments, named) in [
        (&["--phases", "tenants", "--key-order", "hashed"][..], "--key-order"),
        (&["--batch", "60000", "--value-bytes", "1KiB"], "--batch"),
        (&["--rate", "1000", "--sweep", "highest"], "--rate"),
        (&["--html", "/proc/no-such-folder/report.html"], "report.html"),
        (&["--histograms", "/proc/no-such-folder"], "no-such-folder"),
    ] {
        refused(&short(folder.path()).args(arguments).output().unwrap(), named);
        assert!(is_empty(folder.path()), "{arguments:?}");
    }
}
