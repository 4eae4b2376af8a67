//! Static probes (USDT): named places in the engine that bpftrace, perf or gdb can attach to while it runs.
//!
//! Each is one `nop` and a note in the binary that says where it is and in which registers its arguments lie; a tool that
//! attaches puts a breakpoint there. So they are in every build, and cost next to nothing until somebody looks.
//! `docs/profiling.md` shows how to, and `tools/probes` has scripts.
//!
//! The provider is `quipu`. `shard` is the shard's number, a commit its number in the shard, times are nanoseconds.
//!
//! | probe | arguments | fires |
//! | --- | --- | --- |
//! | `turn_begun`, `turn_ended` | shard; shard, nanoseconds | around each turn of a shard's loop |
//! | `commit_sequenced` | shard, commit, bytes of its record | a commit has its number, and is in the open group and the memtable |
//! | `log_write_started` | shard, last commit, records, groups | groups go to the disk |
//! | `log_durable` | shard, commit | all commits up to this one are durable; who waits for them is answered next |
//! | `log_acknowledged` | shard, commit | they have been answered |
//! | `get_begun`, `get_ended` | shard; shard, found | around a point read, waits for blocks included |
//! | `gets_together` | shard, reads | so many point reads of on-core tasks were done together; those do not fire the two above |
//! | `block_read_started`, `block_read_ended` | offset in the file, bytes | around a read of blocks that no cache held |
//! | `carry_due` | shard, level, commit, bytes | a commit made a carry due |
//! | `carry_begun` | shard, first commit, last commit, bytes | its merge (or that of a spill) begins |
//! | `slice_begun`, `slice_ended` | shard; shard, bytes | around a turn's work on carries |
//! | `carry_installed` | shard, commit | its result has taken the place of its inputs |

use crate::levels::{Commit, Span};
use probe::probe;

macro_rules! probes {
    ($($name:ident($($argument:ident: $kind:ty => $value:expr),*);)*) => {
        $(
            #[inline(always)]
            pub(crate) fn $name($($argument: $kind),*) {
                probe!(quipu, $name $(, $value)*);
            }
        )*
    };
}

probes! {
    turn_begun(shard: u16 => shard);
    turn_ended(shard: u16 => shard, nanoseconds: u64 => nanoseconds);
    commit_sequenced(shard: u16 => shard, commit: Commit => commit.0, bytes: usize => bytes);
    log_write_started(shard: u16 => shard, last: Commit => last.0, records: u64 => records, groups: usize => groups);
    log_durable(shard: u16 => shard, commit: Commit => commit.0);
    log_acknowledged(shard: u16 => shard, commit: Commit => commit.0);
    get_begun(shard: u16 => shard);
    get_ended(shard: u16 => shard, found: bool => found);
    gets_together(shard: u16 => shard, reads: usize => reads);
    carry_due(shard: u16 => shard, level: u8 => level, commit: Commit => commit.0, bytes: u64 => bytes);
    carry_installed(shard: u16 => shard, commit: Commit => commit.0);
    slice_begun(shard: u16 => shard);
    slice_ended(shard: u16 => shard, bytes: u64 => bytes);
}

/// See the module's table.
#[inline(always)]
pub(crate) fn carry_begun(shard: u16, span: Span, bytes: u64) {
    probe!(quipu, carry_begun, shard, span.after.0 + 1, span.last.0, bytes);
}

/// See the module's table. Not inlined, as what calls it is generic: copies that the linker drops would leave their notes.
#[inline(never)]
pub(crate) fn block_read_started(offset: u64, bytes: u64) {
    probe!(quipu, block_read_started, offset, bytes);
}

/// See the module's table, and [`block_read_started`].
#[inline(never)]
pub(crate) fn block_read_ended(offset: u64, bytes: usize) {
    probe!(quipu, block_read_ended, offset, bytes);
}
