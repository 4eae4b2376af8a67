//! One merge, one file: the segment of a window, or a spill.

use super::dead::Dead;
use super::output::Output;
use super::sift::Sift;
use super::{Change, Context, spill_name, window_name};
use crate::cache::BlockCache;
use crate::error::Result;
use crate::levels::{Level, Span, Window};
use crate::memtable::Place;
use crate::read::cursor::Cursor;
use crate::read::merge::Merge;
use crate::segment::{SegmentCursor, SegmentIdentity};
use crate::table::TableCursor;
use crate::view::{Kind, Source};
use std::rc::Rc;

/// Merges the sources within a window into its segment.
pub(crate) async fn window(context: Context, window: Window, inputs: Vec<Source>) -> Result<()> {
    let span = window.span();
    let name = window_name(window.level(), window.last());
    let segment = write(&context, Kind::Window, window.level(), span, name, &inputs).await?;
    context.outbox.borrow_mut().push_back(Change::Window { segment, span });
    Ok(())
}

/// Writes a table to a file of its own, ahead of its carry; or merges spills into one of a higher tier.
pub(crate) async fn spill(context: Context, span: Span, tier: Level, inputs: Vec<Source>) -> Result<()> {
    let segment = write(&context, Kind::Spill, tier, span, spill_name(span), &inputs).await?;
    context.outbox.borrow_mut().push_back(Change::Spill { segment, span });
    Ok(())
}

/// A merge over sources that takes what readers have in the cache from there, and reads the rest past it, so that it does not empty it.
pub(crate) fn merge_of(inputs: &[Source], cache: &Rc<BlockCache>) -> Merge {
    let mut merge = Merge::new(inputs.len());
    for source in inputs {
        merge.add(match source {
            Source::Table(table) => Cursor::Table(TableCursor::new(table.clone())),
            Source::Segment(segment) => {
                Cursor::Segment(SegmentCursor::stream(segment.clone()).beside(cache.clone()))
            }
        });
    }
    merge
}

async fn write(
    context: &Context,
    kind: Kind,
    level: Level,
    span: Span,
    name: String,
    inputs: &[Source],
) -> Result<Rc<crate::segment::Segment>> {
    let identity = SegmentIdentity {
        kind: kind.to_byte(),
        level,
        shard: context.shard,
        first: span.first(),
        last: span.last,
        part: 0,
    };
    let mut merge = merge_of(inputs, &context.cache);
    let dead = Dead::find(&mut merge, None, &context.throttle).await?;
    let rule = context.history.keep_rule(context.divisor, span.last);
    let mut sift = Sift::new(rule, span.after == crate::levels::Commit::ZERO);
    let mut output = Output::create(context, name, identity).await?;
    match pour(context, &mut merge, &mut sift, &dead, &mut output).await {
        Ok(()) => output.finish().await,
        Err(error) => {
            // It may have been for want of space: give back what was taken. What fails now was told already.
            let _ = output.discard().await;
            Err(error)
        }
    }
}

/// Merges from start to end into a file.
async fn pour(
    context: &Context,
    merge: &mut Merge,
    sift: &mut Sift,
    dead: &Dead,
    output: &mut Output,
) -> Result<()> {
    merge.seek(Place::Start).await?;
    while let Some(entry) = merge.entry() {
        // Here, since what waited for the disk may have been granted nothing.
        if context.throttle.is_used_up() {
            context.throttle.pause().await;
        }
        let (mut full, warm) = (false, merge.is_warm());
        sift.push(&entry, dead, |entry| full |= output.add(entry, warm));
        context.throttle.spend(entry.weight());
        if full {
            output.flush().await?;
        }
        if !merge.step() {
            merge.advance().await?;
        }
    }
    Ok(())
}
