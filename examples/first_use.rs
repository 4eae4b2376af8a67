//! First use, from async code: directories, commits, batches, reads and scans.
//!
//! `cargo run --example first_use [FOLDER]`

use quipu::{Batch, Engine, Result};
use std::path::Path;

/// Keeps users and an index of their emails, which change together or not at all.
async fn keep_users(path: &Path) -> Result<()> {
    // Opens the engine, or creates it: one shard for each core.
    let engine = Engine::open(path)?;

    // A directory is a named, ordered map of keys to values. Its first put makes it. The first component of the
    // path, here `acme`, decides the shard, so a batch over these two is one atomic commit.
    let users = engine.directory("acme/users")?;
    let emails = engine.directory("acme/users/emails")?;

    let mut batch = Batch::new();
    for (user, email) in
        [("ada", "ada@example.org"), ("grace", "grace@example.org"), ("kurt", "kurt@example.org")]
    {
        batch.put(&users, user, email).put(&emails, email, user);
    }
    // When this returns, the commit is on stable storage.
    let commit = engine.commit(batch).await?;
    println!("commit {} of shard {}", commit.number, commit.shard);

    // Commits that are in flight together share a write of the log.
    let first = users.put("alan", "alan@example.org");
    let second = emails.put("alan@example.org", "alan");
    first.await?;
    second.await?;

    if let Some(email) = users.get("grace").await? {
        println!("grace: {}", String::from_utf8_lossy(&email));
    }
    // A scan is of one moment, whatever is committed meanwhile; it can be bounded, limited, and reversed.
    let mut scan = users.range("b"..).reverse().limit(10);
    while let Some((user, email)) = scan.next().await? {
        println!("{} has {}", String::from_utf8_lossy(&user), String::from_utf8_lossy(&email));
    }
    println!("under acme: {:?}", engine.directory("acme")?.children(None, 10).await?);

    // Dropping the last handle closes, too; closing says whether all went well.
    drop((users, emails, scan));
    engine.close()
}

/// Runs the example in a folder.
pub fn run(path: &Path) -> Result<()> {
    // Any runtime will do.
    pollster::block_on(keep_users(path))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    run(given.as_deref().map_or(temporary.path(), Path::new))?;
    Ok(())
}
