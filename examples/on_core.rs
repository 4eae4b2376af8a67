//! The fast path: tasks on a shard's own core, which commit and read with nothing in between.
//!
//! A small server counts words that clients send over TCP. Its sockets, its tasks and its data share one thread.
//!
//! `cargo run --example on_core [FOLDER]`

use quipu::{Directory, Engine, Local, Result};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Adds one to a word's count. No other task runs between the read and the commit unless one of them waits, so
/// here only one task counts a word at a time: its connection's.
async fn count(local: &Local, words: &Directory, word: &str) -> Result<u64> {
    let known = local.get(words, word).await?;
    let known = known.and_then(|bytes| bytes[..].try_into().ok()).map_or(0, u64::from_be_bytes);
    // Sequenced within the call. Awaiting it waits for the log write that it shares with all others in flight.
    local.put(words, word, (known + 1).to_be_bytes()).await?;
    Ok(known + 1)
}

/// Serves one connection: a word a line, answered by its count.
async fn serve(local: Local, words: Directory, address: Sender<SocketAddr>) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let _ = address.send(listener.local_addr()?);
    let (stream, _) = listener.accept().await?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(reader).lines();
    while let Some(word) = lines.next_line().await? {
        let answer = match count(&local, &words, &word).await {
            Ok(count) => format!("{word}: {count}\n"),
            Err(error) => format!("{error}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Runs the example in a folder.
pub fn run(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(path)?;
    let words = engine.directory("demo/words")?;

    let (address, served_at) = channel();
    let handle = words.clone();
    let server = engine.run_on(&words, async move |local: Local| {
        // Tasks of this thread may be many, and use tokio's timers and sockets.
        local.spawn(async { tokio::time::sleep(Duration::from_millis(1)).await });
        serve(local, handle, address).await
    });

    let mut stream = TcpStream::connect(served_at.recv()?)?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    for word in ["knot", "cord", "knot", "knot"] {
        writeln!(stream, "{word}")?;
        println!("{}", answers.next().transpose()?.unwrap_or_default());
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    server.wait()??;

    // A thousand commits in flight from one task.
    let handle = words.clone();
    let sum = engine.run_on(&words, async move |local: Local| {
        let commits: Vec<_> = (0..1000u64)
            .map(|number| local.put(&handle, format!("word{number}"), number.to_be_bytes()))
            .collect();
        for commit in commits {
            commit.await?;
        }
        local.prefix(&handle, "word")?.collect().await.map(|entries| entries.len())
    });
    println!("{} words", sum.wait()??);
    drop(words);
    engine.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    run(given.as_deref().map_or(temporary.path(), Path::new))
}
