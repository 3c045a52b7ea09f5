//! `docs/performance` is what `--render` makes of its `results.json`.

use std::fs;
use std::path::Path;

use muster_bench::page::{FILE_PAGE, FILE_RESULTS, files};
use muster_bench::results::Results;

#[test]
fn page_and_pictures_are_those_of_the_results_that_are_checked_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance");
    let results = Results::load(&folder.join(FILE_RESULTS)).unwrap();
    let page = fs::read_to_string(folder.join(FILE_PAGE)).unwrap();
    for (name, expected) in files(&page, &results).unwrap() {
        let found = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            found == expected,
            "docs/performance/{name} is not made of results.json: \
             cargo xtask bench --render docs/performance/results.json"
        );
    }
    assert_eq!(results.to_json(), fs::read_to_string(folder.join(FILE_RESULTS)).unwrap());
}
