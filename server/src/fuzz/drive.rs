//! Every target over its seeds and over mutations of them: always the same ones, so that what fails is found again.
//!
//! `PODWRIGHT_FUZZ_SECONDS` goes on for so long with a seed of its own, `PODWRIGHT_FUZZ_SEED` begins with another.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::mutate::{Random, mutate};
use super::target;

/// Unless told otherwise.
const SEED: u64 = 1;
const MUTATIONS: u64 = 4000;
/// For a slow machine, and for the targets that work on files.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Tells how to find what failed again.
struct Attempt<'a> {
    name: &'a str,
    seed: u64,
    number: u64,
    input: &'a [u8],
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed, number, input } = self;
            let kept = std::env::temp_dir().join(format!("podwright-fuzz-{name}"));
            std::fs::write(&kept, input).ok();
            eprintln!("{name}: seed {seed}, input {number}, kept as {}", kept.display());
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn drive(name: &str) {
    let target = target(name);
    let seconds = number("PODWRIGHT_FUZZ_SECONDS");
    let began = Instant::now();
    let unique = || u64::from(std::process::id()) ^ began.elapsed().subsec_nanos() as u64;
    let seed = number("PODWRIGHT_FUZZ_SEED").unwrap_or_else(|| seconds.map_or(SEED, |_| unique()));
    println!("{name}: PODWRIGHT_FUZZ_SEED={seed}");
    let mut inputs = seeds(name);
    assert!(!inputs.is_empty());
    inputs.push(Vec::new());
    for (input, number) in inputs.iter().zip(0..) {
        let _attempt = Attempt { name, seed, number, input };
        target(input);
    }
    let (patience, most) = match seconds {
        Some(seconds) => (Duration::from_secs(seconds), u64::MAX),
        None => (PATIENCE, MUTATIONS),
    };
    let mut random = Random::new(seed);
    let mut number = 0;
    while number < most && began.elapsed() < patience {
        let other = &inputs[random.below(inputs.len())];
        let mut input = inputs[random.below(inputs.len())].clone();
        mutate(&mut random, &mut input, other);
        let _attempt = Attempt { name, seed, number, input: &input };
        target(&input);
        number += 1;
    }
    println!("{name}: {number} mutations in {:?}", began.elapsed());
}

macro_rules! each {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                drive(stringify!($name));
            }
        )*

        #[test]
        fn all_are_driven() {
            let driven = [$(stringify!($name)),*];
            assert_eq!(driven, super::TARGETS.map(|(name, _)| name));
            let manifest = include_str!("../../../fuzz/Cargo.toml");
            for name in driven {
                assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
            }
        }
    };
}

each!(
    reference,
    documents,
    archive,
    layer,
    challenge,
    hosts,
    docker_config,
    accounts,
    spdy,
    negotiation,
    websocket,
    cni_result,
    ttrpc,
    container
);
