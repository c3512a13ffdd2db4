//! Segments that were cut or damaged.
use super::*;

/// A segment of puts, the logs of each being named after it; and where each frame ends.
fn segment() -> (Vec<u8>, Vec<usize>) {
    let (mut octets, mut ends) = (Vec::new(), Vec::new());
    for put in 0..4_u32 {
        let logs = (0..=put)
            .map(|_| log(MIDNIGHT, "eni-1", &format!("log-{put}")))
            .collect();
        let contents = contents_of(&batch(logs)).unwrap();
        let first = u64::from(put) * 10;
        let identity = (put % 2 == 0)
            .then(|| identities::Identity::new(&key("logstore"), 0, &put.to_string()));
        let head = frame::Head {
            key: &key("logstore"),
            first,
            arrived: put,
            identity,
        };
        frame::append(&mut octets, &head, &frame::encode(&contents).unwrap());
        ends.push(octets.len());
    }
    (octets, ends)
}

/// Which puts a segment has, and how many octets are of none.
fn puts_of(segment: &[u8]) -> (Vec<u32>, usize) {
    let (bodies, lost) = frame::split(segment);
    // Those that are whole are decoded by the other tests.
    let arrived = bodies
        .iter()
        .map(|body| u32::from_le_bytes(body[8..12].try_into().unwrap()));
    (arrived.collect(), lost)
}

#[test]
fn a_segment_that_is_cut_at_any_octet_has_the_puts_before_it_and_no_others() {
    let (octets, ends) = segment();
    for cut in 0..=octets.len() {
        let whole = ends.iter().take_while(|&&end| end <= cut).count();
        let lost = cut - ends[..whole].last().copied().unwrap_or(0);
        assert_eq!(
            puts_of(&octets[..cut]),
            ((0..4).take(whole).collect(), lost)
        );
    }
}

#[test]
fn a_flipped_bit_costs_the_put_that_it_is_in_and_no_other() {
    let (mut octets, ends) = segment();
    for at in 0..octets.len() {
        octets[at] ^= 1 << (at % 8);
        let hit = ends.iter().take_while(|&&end| end <= at).count();
        let others = (0..4).filter(|&put| put as usize != hit).collect();
        let frame = ends[hit] - if hit == 0 { 0 } else { ends[hit - 1] };
        assert_eq!(puts_of(&octets), (others, frame), "octet {at}");
        octets[at] ^= 1 << (at % 8);
    }
}

#[tokio::test]
async fn a_store_opens_on_a_cut_segment_goes_on_and_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let (octets, ends) = segment();
    for cut in (0..octets.len()).step_by(997).chain(ends.clone()) {
        std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
        std::fs::create_dir(folder.path().join("wal")).unwrap();
        std::fs::write(
            folder.path().join("wal").join("00000000000000000007.wal"),
            &octets[..cut],
        )
        .unwrap();
        let whole = ends.iter().take_while(|&&end| end <= cut).count();
        let mut expected: Vec<String> = (0..whole)
            .flat_map(|put| vec![format!("log-{put}"); put + 1])
            .collect();
        let store = open(folder.path()).await;
        assert_eq!(names(&store, &key("logstore")).await, expected);
        store
            .put(
                &key("logstore"),
                batch(vec![log(MIDNIGHT, "eni-1", "new")]),
                None,
                at(MIDNIGHT),
            )
            .await
            .unwrap();
        drop(store);
        expected.push("new".into());
        assert_eq!(
            names(&open(folder.path()).await, &key("logstore")).await,
            expected
        );
    }
}
