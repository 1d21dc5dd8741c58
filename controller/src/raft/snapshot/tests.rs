use super::*;

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(LogId::new(openraft::CommittedLeaderId::new(1, 1), index)),
        last_membership: openraft::StoredMembership::default(),
        snapshot_id: format!("1-1-{index}.x/y"),
    }
}

fn state(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 253) as u8).collect()
}

fn sha256(bytes: &[u8]) -> [u8; DIGEST] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("its length")
}

#[test]
fn the_newest_snapshot_is_kept_and_read_back() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens");
    assert!(snapshots.load().expect("loads").is_none());
    assert!(snapshots.reader().expect("reads").is_none());
    for index in [9, 10, 111] {
        snapshots.save(&meta(index), &[index as u8; 100]).expect("saves");
    }
    assert_eq!(snapshots.load().expect("loads"), Some((meta(111), vec![111; 100])));
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
}

#[test]
fn a_damaged_snapshot_is_an_error_that_names_it_and_a_half_written_one_is_cleared() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens");
    snapshots.save(&meta(5), b"state").expect("saves");
    fs::write(dir.path().join("00000000000000000006-x.tmp"), b"half").expect("plants");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens again");
    assert!(snapshots.load().expect("loads").is_some());
    let file = snapshots.files().expect("lists").pop().expect("one");
    let good = fs::read(&file).expect("reads");
    let refusal = || {
        let error = snapshots.load().expect_err("damaged").to_string();
        assert!(error.contains(file.to_str().expect("text")) && error.contains("remove this file"), "{error}");
        let error = SnapshotDir::open(dir.path()).and_then(|d| d.load()).expect_err("damaged").to_string();
        assert!(error.contains("remove this file"), "{error}");
    };
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x10;
        fs::write(&file, &bad).expect("damages");
        refusal();
        fs::write(&file, &good[..i]).expect("cuts");
        refusal();
    }
    fs::write(&file, [good.as_slice(), b"more"].concat()).expect("adds");
    refusal();
    fs::write(&file, &good).expect("repairs");
    assert_eq!(snapshots.load().expect("loads"), Some((meta(5), b"state".to_vec())));
}

#[test]
fn a_snapshot_travels_in_chunks_and_arrives_whole() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 77] {
        let (from, to) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let (sender, receiver) = (SnapshotDir::open(from.path()), SnapshotDir::open(to.path()));
        let (sender, receiver) = (sender.expect("opens"), receiver.expect("opens"));
        sender.save(&meta(7), &state(length)).expect("saves");
        let (found, total, mut reader) = sender.reader().expect("reads").expect("there");
        assert_eq!((&found, total), (&meta(7), length as u64));
        // A newer one does not pull the ground from under it.
        sender.save(&meta(8), b"newer").expect("saves");
        let mut writer = receiver.receive(&found, total).expect("makes room");
        let mut chunks = 0;
        while let Some(chunk) = reader.next_chunk().expect("reads") {
            assert!(chunk.len() <= CHUNK && !chunk.is_empty());
            writer.write(&chunk).expect("writes");
            chunks += 1;
        }
        assert_eq!(chunks, length.div_ceil(CHUNK));
        assert_eq!(reader.next_chunk().expect("at its end"), None);
        assert_eq!(writer.received(), total);
        let digest = reader.digest().expect("at its end");
        assert_eq!(digest, sha256(&state(length)));
        assert_eq!(writer.finish(&digest).expect("whole").into_bytes().expect("reads"), state(length));
        assert_eq!(fs::read_dir(to.path()).expect("lists").count(), 0);
    }
}

#[test]
fn the_last_chunk_of_a_damaged_snapshot_never_comes_out() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens");
    snapshots.save(&meta(7), &state(3 * CHUNK)).expect("saves");
    let file = snapshots.files().expect("lists").pop().expect("one");
    let mut bytes = fs::read(&file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("damages");
    let (_, _, mut reader) = snapshots.reader().expect("opens").expect("there");
    for _ in 0..2 {
        assert!(reader.next_chunk().expect("a chunk").is_some());
    }
    assert!(reader.next_chunk().is_err_and(|e| e.to_string().contains("checksum")));
    assert_eq!(reader.digest(), None);
}

#[test]
fn what_arrives_is_held_to_what_was_announced() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens");
    let receive = |total| snapshots.receive(&meta(3), total);
    assert!(receive(MAX_STATE + 1).is_err_and(|e| e.to_string().contains("announced")));
    let mut writer = receive(4).expect("makes room");
    writer.write(b"abc").expect("fits");
    assert!(writer.write(b"de").is_err_and(|e| e.to_string().contains("more comes")));
    assert!(writer.finish(&sha256(b"abc")).is_err_and(|e| e.to_string().contains("3 bytes")));
    let mut writer = receive(3).expect("makes room");
    writer.write(b"abc").expect("fits");
    assert!(writer.finish(&sha256(b"abd")).is_err_and(|e| e.to_string().contains("checksum")));
    // One that is given up leaves nothing, one that a crash cut off is cleared at the next start.
    let mut writer = receive(3).expect("makes room");
    writer.write(b"ab").expect("fits");
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    std::mem::forget(writer);
    SnapshotDir::open(dir.path()).expect("opens");
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
}

#[test]
fn older_formats_are_brought_up_and_newer_ones_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let one = SnapshotDir::open_with(dir.path(), &[]).expect("opens");
    one.save(&meta(7), b"state").expect("saves");
    let upper: Migration = |state| Ok(state.to_ascii_uppercase());
    let more: Migration = |state| Ok([state, b"!".to_vec()].concat());
    for _ in 0..2 {
        let three = SnapshotDir::open_with(dir.path(), &[upper, more]).expect("opens");
        assert_eq!(three.load().expect("loads"), Some((meta(7), b"STATE!".to_vec())));
    }
    let error = SnapshotDir::open_with(dir.path(), &[upper]).expect_err("newer").to_string();
    assert!(error.contains("format 3") && error.contains("reads 2") && error.contains("newer version"), "{error}");
}

#[test]
fn a_snapshot_that_knows_more_than_the_store_is_put_away() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let snapshots = SnapshotDir::open(dir.path()).expect("opens");
    snapshots.put_away_ahead_of(None).expect("nothing to do");
    snapshots.save(&meta(7), b"state").expect("saves");
    snapshots.put_away_ahead_of(meta(7).last_log_id).expect("as far as the store");
    assert!(snapshots.load().expect("loads").is_some());
    snapshots.put_away_ahead_of(meta(6).last_log_id).expect("puts it away");
    assert!(snapshots.load().expect("loads").is_none());
    let names: Vec<_> = fs::read_dir(dir.path()).expect("lists").map(|e| e.expect("one").file_name()).collect();
    assert!(names.len() == 1 && names[0].to_string_lossy().ends_with(".unused"), "{names:?}");
}
