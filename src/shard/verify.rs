//! Verification of a shard's files, while the shard goes on.

use crate::stats::Verified;
use crate::view::{Frame, Source};

/// Reads every file of a frame from end to end. One that is damaged does not keep the others from being read.
pub(crate) async fn verify(frame: &Frame) -> Verified {
    let sources = frame.view.sources.iter().filter_map(|source| match source {
        Source::Segment(segment) => Some(segment),
        Source::Table(_) => None,
    });
    let parts = frame.view.parts.iter().map(|part| &part.segment);
    let mut verified = Verified::default();
    for segment in sources.chain(parts) {
        verified.files += 1;
        verified.bytes += segment.meta().file_bytes;
        verified.entries += segment.meta().entries;
        if let Err(error) = segment.verify().await {
            verified.damaged.push(error.on_shard(segment.meta().identity.shard));
        }
    }
    verified
}
