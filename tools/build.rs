//! Notes what the program was built from and with, for its reports: commit, compiler, profile.

use std::process::Command;

fn main() {
    let commit = output("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    println!("cargo::rustc-env=QUIPU_COMMIT={commit}");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    println!("cargo::rustc-env=QUIPU_COMPILER={}", output(&compiler, &["--version"]));
    println!("cargo::rustc-env=QUIPU_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    println!("cargo::rustc-env=QUIPU_FRAME_POINTERS={}", flags.contains("force-frame-pointers"));
    // Whatever makes another commit, or changes the sources, asks again.
    for path in ["HEAD", "logs/HEAD"] {
        let path = output("git", &["rev-parse", "--git-path", path]);
        if std::path::Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for path in ["build.rs", "src", "../src", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// What a command says on its first line; nothing where it cannot be run or fails.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_string()
}
