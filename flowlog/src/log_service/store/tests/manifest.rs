use super::{super::manifest::Manifest, *};

fn file(number: u64, min_sequence: u64) -> DataFile {
    DataFile {
        path: files::path(&key("logstore"), MIDNIGHT / 3600 + 1, number),
        octets: 1,
        rows: 1,
        hour: MIDNIGHT / 3600 + 1,
        min_time: MIDNIGHT,
        max_time: MIDNIGHT,
        min_sequence,
        max_sequence: min_sequence,
        made: 0,
        memory_octets: 0,
    }
}

#[test]
fn a_manifest_is_read_as_written_and_not_if_an_octet_of_it_is_missing_or_another() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = Manifests::open(folder.path().join("manifests")).unwrap();
    let mut manifest = Manifest::default().exchange(&[], vec![file(0, 0), file(1, 5)]);
    manifest.note_arrival(9, 0);
    manifests.save(&key("logstore"), &manifest).unwrap();
    assert_eq!(
        manifests.load().unwrap(),
        [(key("logstore"), manifest)].into()
    );
    let path = folder.path().join("manifests/tests/logstore.json");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(
            manifests.load().unwrap_err().kind(),
            std::io::ErrorKind::InvalidData
        );
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let error = manifests.load().unwrap_err();
        assert!(error.to_string().contains("logstore.json"), "{error}");
    }
}

#[test]
fn files_are_in_folders_by_date_and_hour() {
    assert_eq!(
        file(3, 0).path.as_ref(),
        "project=tests/logstore=logstore/date=2026-11-22/hour=01/000000000003.parquet"
    );
}

#[test]
fn notes_of_arrivals_are_bounded_and_in_order() {
    let mut manifest = Manifest::default();
    for minute in 0..20_000_u32 {
        manifest.note_arrival(minute * 60, u64::from(minute) + 1);
        manifest.note_arrival(minute * 60 + 59, u64::from(minute) + 1);
    }
    assert!(manifest.arrivals.len() <= 4096);
    assert!(manifest.arrivals.is_sorted());
    assert_eq!(manifest.arrivals[0], (0, 1));
    assert_eq!(manifest.arrivals.last(), Some(&(19_999 * 60, 20_000)));
}
