//! Tests of the map, against the map of the standard library.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Returns the differences as owned values: key, value before, value now.
fn differences(
    now: &SharedMap<u16, u8>,
    before: &SharedMap<u16, u8>,
) -> Vec<(u16, Option<u8>, Option<u8>)> {
    let differences = now.differences(before);
    differences.map(|entry| (*entry.key, entry.before.copied(), entry.now.copied())).collect()
}

/// Returns the same as [`differences`], computed by the model.
fn model_differences(
    now: &BTreeMap<u16, u8>,
    before: &BTreeMap<u16, u8>,
) -> Vec<(u16, Option<u8>, Option<u8>)> {
    let mut keys: Vec<_> = now.keys().chain(before.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let entry = |key: u16| (key, before.get(&key).copied(), now.get(&key).copied());
    keys.into_iter().map(entry).filter(|(_, before, now)| before != now).collect()
}

proptest! {
    /// Each step inserts a value, or removes one (`None`). A snapshot is taken now and then.
    #[test]
    fn the_map_and_its_differences_match_a_model(
        steps in prop::collection::vec((0..600_u16, prop::option::weighted(0.6, 0..3_u8)), 0..1500),
        snapshot_every in 1..400_usize,
    ) {
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        let (mut earlier, mut earlier_model) = (map.clone(), model.clone());
        for (number, (key, value)) in steps.into_iter().enumerate() {
            match value {
                Some(value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
                None => assert_eq!(map.remove(&key), model.remove(&key)),
            }
            assert_eq!(map.get(&key), model.get(&key));
            assert!(map.after(Some(&key)).next() == model.range(key + 1..).next());
            if number % snapshot_every == 0 {
                assert_eq!(differences(&map, &earlier), model_differences(&model, &earlier_model));
                assert_eq!(map == earlier, model == earlier_model);
                (earlier, earlier_model) = (map.clone(), model.clone());
            }
        }
        assert!(map.iter().eq(model.iter()) && map.after(None::<&u16>).eq(model.iter()));
        for key in 0..600 {
            assert!(map.after(Some(&key)).eq(model.range(key + 1..)));
        }
        assert_eq!(map.len(), model.len());
        assert_eq!(map.is_empty(), model.is_empty());
        assert!(map.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(map, model.into_iter().collect::<SharedMap<_, _>>());
    }
}

#[test]
fn new_keys_in_any_order_use_few_chunks() {
    let chunks = |keys: &mut dyn Iterator<Item = u16>| {
        let mut map = SharedMap::default();
        keys.for_each(|key| assert_eq!(map.insert(key, ()), None));
        map.chunks.len()
    };
    let all = 10_000_usize;
    assert_eq!(chunks(&mut (0..10_000)), all.div_ceil(CHUNK_MAX), "ascending keys fill chunks");
    let first = 0..CHUNK_MAX as u16;
    assert!(chunks(&mut first.clone().chain((1_000..11_000).rev())) < all / (CHUNK_MAX / 4));
    assert!(chunks(&mut first.chain((1_000..11_000).rev().step_by(2))) < all / (CHUNK_MAX / 2));
}

#[test]
fn a_change_copies_one_chunk() {
    let before: SharedMap<u16, u8> = (0..10_000).map(|key| (key, 0)).collect();
    let mut now = before.clone();
    now.insert(5_000, 1);
    let shared =
        now.chunks.iter().filter(|chunk| before.chunks.iter().any(|c| Arc::ptr_eq(c, chunk)));
    assert_eq!(shared.count(), now.chunks.len() - 1);
    assert_eq!(differences(&now, &before), [(5_000, Some(0), Some(1))]);
}

#[test]
fn few_entries_use_few_chunks_after_many_removals() {
    let mut map: SharedMap<u16, u8> = (0..10_000).map(|key| (key, 0)).collect();
    (0..10_000).filter(|key| key % 100 != 0).for_each(|key| {
        map.remove(&key);
    });
    assert_eq!(map.len(), 100);
    assert!(map.chunks.len() <= 2 * 100 / MERGE_MAX + 1, "{} chunks", map.chunks.len());
}
