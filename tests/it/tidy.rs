//! The tree is the architecture: who may use whom, where SQL stands, what is pure. Read as text, so that it costs nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// A room under `src`, and the rooms it may name by `crate::…`. Value types (`clock`, `ids`) and `db` may be named by all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("ids", &[]),
    ("tasks", &[]),
    ("config", &[]),
    ("db", &[]),
    ("envelope", &[]),
    ("events", &[]),
    ("reviews", &[]),
    ("money", &["events", "reviews"]),
    ("shop", &["money", "events", "reviews", "envelope", "mail"]),
    ("access", &[]),
    ("mail", &["config", "events"]),
    ("feeds", &["config", "events", "money"]),
    ("workers", &["money", "shop", "mail", "feeds", "envelope", "reviews", "events", "config", "tasks", "access"]),
    ("surfaces", &["http", "money", "shop", "access", "envelope", "config"]),
    ("http", &["surfaces", "money", "shop", "access", "envelope", "config", "tasks", "workers"]),
];

/// What every room may name.
const VALUE_ROOMS: &[&str] = &["clock", "ids", "db"];

/// Crates that only these rooms may name.
const FENCED: &[(&str, &[&str])] = &[
    ("rusqlite", &["db"]),
    ("sqlx", &["db"]),
    ("axum", &["http", "surfaces"]),
    ("lettre", &["mail", "config"]),
    ("reqwest", &["feeds", "commands"]),
    ("btc::", &["daemon.rs", "commands"]),
    ("evm::", &["daemon.rs", "commands"]),
    ("simnet::", &["daemon.rs", "commands"]),
    ("signer::", &["commands"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of code, without comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_string_lossy().into_owned()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name == "tests.rs"
        || name == "testing.rs"
        || name == "fixture.rs"
        || path.components().any(|c| c.as_os_str() == "tests")
}

fn report(offences: &[String]) {
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

#[test]
fn rooms_use_only_what_they_may() {
    let mut offences = Vec::new();
    for path in sources(&root().join("src")) {
        let room = room_of(&path);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room.trim_end_matches(".rs")) else {
            continue;
        };
        if is_test(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(&text) {
            for (at, _) in line.match_indices("crate::") {
                if line[..at].ends_with('$') {
                    continue;
                }
                let rest = &line[at + "crate::".len()..];
                let used: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine = used.is_empty()
                    || used == room.trim_end_matches(".rs")
                    || VALUE_ROOMS.contains(&used.as_str())
                    || allowed.contains(&used.as_str())
                    || used == "both";
                if !fine {
                    offences.push(format!("{}:{number}: `{room}` may not use `{used}`", path.display()));
                }
            }
        }
    }
    report(&offences);
}

#[test]
fn crates_stay_behind_their_fences() {
    let mut offences = Vec::new();
    for path in sources(&root().join("src")) {
        let room = room_of(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (fenced, rooms) in FENCED {
            if rooms.contains(&room.as_str()) || is_test(&path) {
                continue;
            }
            for (number, line) in code(&text) {
                let named = line.contains(&format!("use {fenced}"))
                    || line.contains(&format!(" {fenced}")) && fenced.ends_with("::")
                    || line.contains(&format!("{}::", fenced.trim_end_matches("::"))) && !fenced.ends_with("::");
                if named && !line.contains("crate::") {
                    offences.push(format!("{}:{number}: `{room}` may not name `{fenced}`", path.display()));
                }
            }
        }
    }
    report(&offences);
}

#[test]
fn sql_stands_in_stores_only() {
    let mut offences = Vec::new();
    for path in sources(&root().join("src")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "store.rs" || room_of(&path) == "db" || is_test(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(&text) {
            let lower = line.to_lowercase();
            let sql = [
                "\"select ",
                "\"insert into",
                "\"update ",
                "\"delete from",
                "execute!(",
                "rows!(",
                "row!(",
                "_each!(",
                "deferred!(",
            ];
            if sql.iter().any(|sign| lower.contains(sign)) {
                offences.push(format!("{}:{number}: SQL outside store.rs", path.display()));
            }
        }
    }
    report(&offences);
}

#[test]
fn machines_are_pure() {
    let mut offences = Vec::new();
    for path in sources(&root().join("src")) {
        if path.file_name().unwrap() != "machine.rs" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in code(&text) {
            for impure in ["async ", ".await", "Tx", "Db>", "Clock", "tokio"] {
                if line.split(|c: char| !c.is_alphanumeric() && c != '.').any(|word| word == impure.trim())
                    || line.contains(".await")
                {
                    offences.push(format!("{}:{number}: `{impure}` in a machine", path.display()));
                }
            }
        }
    }
    report(&offences);
}

#[test]
fn there_is_no_drawer_for_everything() {
    let mut offences = Vec::new();
    for folder in ["src", "chains"] {
        for path in sources(&root().join(folder)) {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let parent = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            for bad in ["utils", "util", "common", "helpers", "types", "models", "misc"] {
                if stem == bad || parent == bad {
                    offences.push(format!("{}: find the noun", path.display()));
                }
            }
        }
    }
    report(&offences);
}

/// Both databases have the same migrations, tables and columns; only types differ.
#[test]
fn migrations_are_twins() {
    let folder = root().join("migrations");
    let names = |backend: &str| {
        let mut names: Vec<String> = fs::read_dir(folder.join(backend))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
    for name in names("sqlite") {
        let sqlite = fs::read_to_string(folder.join("sqlite").join(&name)).unwrap();
        let postgres = fs::read_to_string(folder.join("postgres").join(&name)).unwrap();
        let translated = sqlite
            .replace("integer primary key autoincrement", "bigint generated by default as identity primary key")
            .replace("integer primary key references", "bigint primary key references")
            .replace(" blob", " bytea")
            .replace("BLOB", "BYTEA");
        for (n, (ours, theirs)) in translated.lines().zip(postgres.lines()).enumerate() {
            assert_eq!(ours, theirs, "{name}:{}", n + 1);
        }
        assert_eq!(translated.lines().count(), postgres.lines().count(), "{name}");
    }
}

/// Nothing about money is a binary floating point number.
#[test]
fn no_floats() {
    let mut offences = Vec::new();
    for folder in ["src", "chains"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in code(&text) {
                if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "f32" || word == "f64") {
                    offences.push(format!("{}:{number}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    report(&offences);
}
