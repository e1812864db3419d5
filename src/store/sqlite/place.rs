//! Where a database may stand: on a local disk, readable by its owner alone (threat K09).

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use crate::store::{StoreError, sqlite::failed};

/// File-system types (`statfs`, Linux `magic.h`) whose locks or flushes are another machine's promise.
const NETWORK: [(u64, &str); 10] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x7461_636f, "OCFS2"),
];

/// Refuses a network file system, and takes group and others their rights.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let found = rustix::fs::statfs(path).map_err(failed)?;
    if let Some(kind) = network_kind(found.f_type) {
        return Err(StoreError::Network { path: path.to_owned(), kind });
    }
    let mut permissions = std::fs::metadata(path).map_err(failed)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(())
}

/// The kind of network file system, if we can tell. The type is a signed word here and an unsigned one there: the low 32 bits
/// are what counts.
fn network_kind(kind: impl TryInto<i128>) -> Option<&'static str> {
    let kind = kind.try_into().ok()? & 0xffff_ffff;
    NETWORK.iter().find(|(magic, _)| i128::from(*magic) == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k09_a_network_file_system_is_told_by_its_type() {
        assert_eq!(network_kind(0x6969_i64), Some("NFS"));
        assert_eq!(network_kind(0xff53_4d42_u32), Some("CIFS"));
        assert_eq!(network_kind(-11_317_950_i64), Some("CIFS"), "sign-extended");
        assert_eq!(network_kind(0xef53_i64), None, "ext4");
    }
}
