//! The block device under a folder, as sysfs describes it: what a durable write costs depends on it.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A block device. What the system does not tell is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Device {
    /// Its name, like "vda" or "nvme0n1p2".
    pub(crate) name: Option<String>,
    /// What it calls itself.
    pub(crate) model: Option<String>,
    /// "write back": a flush is needed for durability; "write through": it is not.
    pub(crate) write_cache: Option<String>,
    /// Whether a write can be made durable by itself, without a flush of the rest.
    pub(crate) fua: Option<bool>,
    pub(crate) rotational: Option<bool>,
    /// The I/O scheduler in use.
    pub(crate) scheduler: Option<String>,
    pub(crate) size_bytes: Option<u64>,
}

impl Device {
    /// The device with this number ("254:0"), as the mount table has it. Nothing is known of those that are no block
    /// devices.
    pub(crate) fn of(number: &str, sysfs: &Path) -> Self {
        let Ok(device) = fs::canonicalize(sysfs.join("dev/block").join(number)) else {
            return Device::default();
        };
        // A partition has no queue of its own; its disk, the folder above, has.
        let disk = match device.join("queue").is_dir() {
            true => device.clone(),
            false => device.parent().map_or_else(|| device.clone(), Path::to_path_buf),
        };
        let flag = |file: &str| read(disk.join("queue").join(file)).map(|text| text == "1");
        Device {
            name: device.file_name().map(|name| name.to_string_lossy().into_owned()),
            model: read(disk.join("device/model")),
            write_cache: read(disk.join("queue/write_cache")),
            fua: flag("fua"),
            rotational: flag("rotational"),
            scheduler: read(disk.join("queue/scheduler")).map(|text| in_brackets(&text).to_string()),
            // In sectors of 512 bytes, whatever the device's own are.
            size_bytes: read(device.join("size")).and_then(|text| Some(text.parse::<u64>().ok()? * 512)),
        }
    }
}

fn read(file: PathBuf) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

/// "none" of "[none] mq-deadline".
fn in_brackets(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(inside, _)| inside)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_described_by_its_disk() {
        let base = tempfile::tempdir().unwrap();
        let partition = base.path().join("devices/vdb/vdb1");
        fs::create_dir_all(&partition).unwrap();
        fs::create_dir_all(base.path().join("devices/vdb/queue")).unwrap();
        fs::create_dir_all(base.path().join("dev/block")).unwrap();
        std::os::unix::fs::symlink(&partition, base.path().join("dev/block/254:17")).unwrap();
        fs::write(partition.join("size"), "2048\n").unwrap();
        fs::write(base.path().join("devices/vdb/queue/write_cache"), "write back\n").unwrap();
        fs::write(base.path().join("devices/vdb/queue/scheduler"), "mq-deadline [none]\n").unwrap();
        fs::write(base.path().join("devices/vdb/queue/fua"), "0\n").unwrap();
        let device = Device::of("254:17", base.path());
        assert_eq!(device.name.as_deref(), Some("vdb1"));
        assert_eq!(device.write_cache.as_deref(), Some("write back"));
        assert_eq!(device.scheduler.as_deref(), Some("none"));
        assert_eq!((device.fua, device.rotational), (Some(false), None));
        assert_eq!(device.size_bytes, Some(1 << 20));
        assert!(Device::of("1:1", base.path()).name.is_none());
    }
}
