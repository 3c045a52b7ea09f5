mod crash;
mod damage;
mod model;
mod records;
mod running;

/// What a journal keeps of these records of an engine.
pub(crate) fn kept(records: &[super::Record]) -> Vec<super::Record> {
    let mut state = super::state::State::default();
    records.iter().for_each(|record| state.apply(record, super::state::Source::Engine));
    state.records().expect("what was just written")
}
