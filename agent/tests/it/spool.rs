//! The spool keeps what was not confirmed, and nothing longer than it should.

use std::fs;
use std::time::Duration;

use muster_agent::spool::{
    BYTES_MAX, DAMAGED_BYTES_MAX, DAMAGED_MAX, Keep, Parcel, REPORTS_MAX, Spool, SpoolError, UNROUTABLE_KEEP_MS,
};
use muster_protocol::{RequestId, Signature};
use tokio::time::Instant;

use crate::kit::{NOW, fresh_id, real_disk};

fn parcel(request_id: RequestId, bytes: usize) -> Parcel {
    Parcel {
        request_id,
        routing_key: "user/lea.s1.web1".to_owned(),
        content_type: "application/vnd.muster.report.v1+json".to_owned(),
        body: vec![b'x'; bytes].into(),
        signatures: vec![Signature { keyid: "ab".into(), sig: "AA==".into(), chain: vec!["AA==".into()] }],
        expires_at: NOW.plus_ms(1_000),
    }
}

#[test]
fn what_is_on_disk_survives_and_what_is_confirmed_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let (mut spool, opened) = Spool::open(&real_disk(), &path).unwrap();
    assert_eq!(opened.reports, 0);
    let kept = parcel(fresh_id(), 10);
    let (key, _) = spool.put(kept.clone(), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    let (memory, _) = spool.put(parcel(fresh_id(), 10), Keep::InMemory, NOW, &mut |_| true).unwrap();
    // A refusal of a second copy does not take the place of the outcome.
    let copies: Vec<_> =
        (0..2).map(|_| spool.put(parcel(kept.request_id, 1), Keep::InMemory, NOW, &mut |_| true).unwrap().0).collect();
    assert_eq!(spool.len(), 4);
    assert!(spool.holds_outcome(kept.request_id) && !spool.holds_outcome(memory.request_id()));
    assert_eq!(spool.get(key), Some(&kept));
    drop(spool);
    let (mut spool, opened) = Spool::open(&real_disk(), &path).unwrap();
    assert_eq!((opened.reports, spool.waiting(Instant::now())), (1, vec![key]));
    assert_eq!(spool.get(key), Some(&kept));
    for key in copies.into_iter().chain([memory, key]) {
        spool.remove(key);
    }
    assert!(spool.is_empty());
    assert_eq!(Spool::open(&real_disk(), &path).unwrap().1.reports, 0);
}

#[test]
fn reports_expire_and_readers_that_are_gone_are_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("spool")).unwrap();
    let old = parcel(fresh_id(), 1);
    spool.put(old.clone(), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    let (key, _) = spool
        .put(Parcel { expires_at: NOW.plus_ms(1_000_000), ..parcel(fresh_id(), 1) }, Keep::OnDisk, NOW, &mut |_| true)
        .unwrap();
    assert_eq!(spool.expired(NOW.plus_ms(999)), []);
    let (expired, parcel) = spool.expired(NOW.plus_ms(1_000)).pop().unwrap();
    assert_eq!((parcel, spool.len()), (old, 2), "it stays until that is recorded");
    spool.remove(expired);
    assert_eq!(spool.len(), 1);
    assert_eq!(spool.note_unroutable(key, NOW), Some(0));
    assert_eq!(spool.note_unroutable(key, NOW.plus_ms(UNROUTABLE_KEEP_MS - 1)), Some(UNROUTABLE_KEEP_MS - 1));
    assert_eq!(spool.note_unroutable(key, NOW.plus_ms(UNROUTABLE_KEEP_MS)), None);
}

#[test]
fn a_report_that_is_put_off_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("spool")).unwrap();
    let keys: Vec<_> =
        (0..3).map(|_| spool.put(parcel(fresh_id(), 1), Keep::InMemory, NOW, &mut |_| true).unwrap().0).collect();
    let now = Instant::now();
    let (soon, late) = (now + Duration::from_secs(5), now + Duration::from_secs(9));
    assert_eq!(spool.next_retry(), None);
    let waiting = |spool: &Spool, at| {
        let mut waiting = spool.waiting(at);
        waiting.sort_by_key(|key| keys.iter().position(|known| known == key));
        waiting
    };
    spool.put_off(keys[0], late);
    spool.put_off(keys[1], soon);
    assert_eq!((waiting(&spool, now), spool.next_retry()), (vec![keys[2]], Some(soon)));
    assert_eq!(waiting(&spool, soon), keys[1..]);
    assert_eq!(waiting(&spool, late), keys);
    spool.retry_all();
    assert_eq!((waiting(&spool, now), spool.next_retry()), (keys.clone(), None));
}

#[test]
fn the_end_of_a_change_takes_the_room_of_refusals() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("spool")).unwrap();
    let refusals: Vec<_> = (0..REPORTS_MAX).map(|_| parcel(fresh_id(), 1)).collect();
    for refusal in &refusals {
        spool.put(refusal.clone(), Keep::InMemory, NOW, &mut |_| true).unwrap();
    }
    let (_, evicted) = spool.put(parcel(fresh_id(), 1), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    assert_eq!((evicted.len(), spool.len()), (1, REPORTS_MAX));
    let oldest = refusals.iter().min_by_key(|refusal| refusal.request_id).unwrap();
    assert_eq!(&evicted[0], oldest);
    // A large one takes the room of as many as it needs, and no more.
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("large")).unwrap();
    for _ in 0..4 {
        spool.put(parcel(fresh_id(), BYTES_MAX / 4), Keep::InMemory, NOW, &mut |_| true).unwrap();
    }
    let (_, evicted) = spool.put(parcel(fresh_id(), BYTES_MAX / 3), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    assert_eq!((evicted.len(), spool.len()), (2, 3));
    // Where what is on disk fills it, nothing is dropped in vain.
    for _ in 0..2 {
        spool.put(parcel(fresh_id(), BYTES_MAX / 3), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    }
    let before = spool.len();
    assert!(matches!(
        spool.put(parcel(fresh_id(), BYTES_MAX / 3), Keep::OnDisk, NOW, &mut |_| true),
        Err(SpoolError::Full { .. })
    ));
    assert_eq!(spool.len(), before);
}

#[test]
fn it_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("spool")).unwrap();
    for _ in 0..REPORTS_MAX {
        spool.put(parcel(fresh_id(), 1), Keep::InMemory, NOW, &mut |_| true).unwrap();
    }
    let error = spool.put(parcel(fresh_id(), 1), Keep::InMemory, NOW, &mut |_| true).unwrap_err();
    assert!(matches!(error, SpoolError::Full { reports: REPORTS_MAX, .. }) && error.is_transient());
    let (mut spool, _) = Spool::open(&real_disk(), &directory.path().join("other")).unwrap();
    let half = BYTES_MAX / 2 + 1;
    let (key, _) = spool.put(parcel(fresh_id(), half), Keep::InMemory, NOW, &mut |_| true).unwrap();
    assert!(spool.put(parcel(fresh_id(), half), Keep::InMemory, NOW, &mut |_| true).is_err());
    spool.remove(key);
    spool.put(parcel(fresh_id(), half), Keep::InMemory, NOW, &mut |_| true).unwrap();
}

#[test]
fn what_is_no_report_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let (mut spool, _) = Spool::open(&real_disk(), &path).unwrap();
    let good = fresh_id();
    spool.put(parcel(good, 1), Keep::OnDisk, NOW, &mut |_| true).unwrap();
    let text = fs::read(path.join(format!("{good}.json"))).unwrap();
    // A half file, rubbish, and a good report under another's name.
    fs::write(path.join("half.json"), &text[..text.len() / 2]).unwrap();
    fs::write(path.join("rubbish.json"), "no").unwrap();
    fs::write(path.join(format!("{}.json", fresh_id())), &text).unwrap();
    let (spool, opened) = Spool::open(&real_disk(), &path).unwrap();
    assert_eq!((spool.len(), opened.damaged.len()), (1, 3));
    assert!(opened.damaged.iter().all(|path| path.exists()));
    assert_eq!(Spool::open(&real_disk(), &path).unwrap().1.damaged.len(), 0, "only once");
}

#[test]
fn damaged_files_are_bounded_and_the_oldest_go_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    drop(Spool::open(&real_disk(), &path).unwrap());
    let name = |number: usize| path.join(format!("{number:04}.damaged"));
    (0..DAMAGED_MAX).for_each(|number| fs::write(name(number), "x").unwrap());
    assert!(Spool::open(&real_disk(), &path).unwrap().1.surplus.is_empty());
    fs::write(path.join("9999.json"), "no").unwrap();
    fs::write(name(DAMAGED_MAX), "x").unwrap();
    let (spool, opened) = Spool::open(&real_disk(), &path).unwrap();
    assert_eq!(opened.damaged, [path.join("9999.damaged")]);
    assert_eq!(opened.surplus, [name(0), name(1)]);
    assert!(name(0).exists(), "not before it is written down");
    spool.remove_damaged(&name(0));
    spool.remove_damaged(&name(1));
    assert!(Spool::open(&real_disk(), &path).unwrap().1.surplus.is_empty());
    // Few that are large, by their bytes.
    fs::File::create(path.join("5000.damaged")).unwrap().set_len(DAMAGED_BYTES_MAX - 3).unwrap();
    let surplus = Spool::open(&real_disk(), &path).unwrap().1.surplus;
    assert_eq!(surplus.len(), DAMAGED_MAX - 2);
    assert!(!surplus.contains(&path.join("5000.damaged")) && surplus[0] == name(2));
}
