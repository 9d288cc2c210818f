//! Winners on disk, by the keys of units, for an adapter and its driver.

use crate::cache::DeviceCache;
use selvedge_codegen::{Choices, Tunable};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const FILE: &str = "tune.json";
/// Version of the file; others are not read.
const VERSION: u64 = 1;

/// The winner of a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Winner {
    /// Name of the candidate.
    pub choice: String,
    /// All candidates there were: with others it would have to be measured again.
    pub candidates: Vec<String>,
}

/// Winners by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    winners: BTreeMap<String, Winner>,
}

impl Store {
    /// What the cache has; nothing if it has no such file or one that does not read.
    pub fn read(cache: &DeviceCache) -> Store {
        let file = cache.read(FILE).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(file) = file.filter(|f| f["version"] == VERSION) else { return Store::default() };
        let winner = |value: &Value| {
            let names = value["candidates"].as_array()?.iter().map(|c| Some(c.as_str()?.to_string()));
            Some(Winner { choice: value["choice"].as_str()?.to_string(), candidates: names.collect::<Option<_>>()? })
        };
        let entries = file["winners"].as_object().into_iter().flatten();
        Store { winners: entries.filter_map(|(key, value)| Some((key.clone(), winner(value)?))).collect() }
    }
    /// Adds to what the cache has by now.
    pub fn write(&self, cache: &DeviceCache, dropped: &[String]) {
        let mut all = Store::read(cache);
        all.winners.retain(|key, _| !dropped.contains(key));
        all.winners.extend(self.winners.clone());
        let entry =
            |(key, w): (&String, &Winner)| (key.clone(), json!({ "choice": w.choice, "candidates": w.candidates }));
        let winners: Map<String, Value> = all.winners.iter().map(entry).collect();
        let text = json!({ "version": VERSION, "winners": winners }).to_string();
        cache.write(FILE, text.as_bytes());
    }
    /// Notes a winner.
    pub fn insert(&mut self, key: &str, candidates: &[String], choice: &str) {
        let winner = Winner { choice: choice.to_string(), candidates: candidates.to_vec() };
        self.winners.insert(key.to_string(), winner);
    }
    /// Forgets one.
    pub fn remove(&mut self, key: &str) {
        self.winners.remove(key);
    }
    /// The choices that it stands for.
    pub fn choices(&self) -> Choices {
        self.winners.iter().map(|(key, w)| (key.clone(), w.choice.clone())).collect()
    }
    /// The winner, if what there is to choose from is what was measured.
    pub fn winner(&self, key: &str, candidates: &[String]) -> Option<&str> {
        self.winners.get(key).filter(|w| w.candidates == candidates).map(|w| w.choice.as_str())
    }
    /// Winners that are no candidates any more: key and name.
    pub fn stale(&self, tunables: &BTreeMap<String, Tunable>) -> Vec<(String, String)> {
        let gone = |(key, t): (&String, &Tunable)| {
            let winner = self.winners.get(key)?;
            (!t.candidates.contains(&winner.choice)).then(|| (key.clone(), winner.choice.clone()))
        };
        tunables.iter().filter_map(gone).collect()
    }
}
