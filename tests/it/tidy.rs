//! Rules of the tree that Cargo cannot hold: which crates may depend on which, which rooms of the root package may use
//! which, where SQL stands and who owns a table, what is pure. Sources are read as token trees, so that grouped
//! imports, macros and strings count and comments do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Our crates, each with the list of our crates that it may name under `[dependencies]`.
const CRATES: &[(&str, &[&str])] = &[
    ("chain", &[]),
    ("rpc", &["chain"]),
    ("btc", &["chain", "rpc"]),
    ("evm", &["chain", "rpc"]),
    ("tron", &["chain", "rpc"]),
    ("signer", &["chain"]),
    ("simnet", &["chain"]),
    ("clock", &[]),
    ("tasks", &[]),
    ("db", &["chain", "clock"]),
    ("ids", &["clock", "db"]),
    ("config", &["chain", "db", "ids"]),
    ("envelope", &[]),
    ("records", &["chain", "clock", "db", "ids"]),
    ("access", &["clock", "db", "ids"]),
    ("mail", &["clock", "config", "db", "records"]),
    ("money", &["chain", "clock", "db", "ids", "records"]),
    ("shop", &["access", "chain", "clock", "db", "envelope", "ids", "mail", "money", "records"]),
    ("web", &["access", "clock", "config", "db", "ids", "tasks"]),
    ("checkout", &["access", "chain", "clock", "config", "db", "envelope", "ids", "money", "shop", "tasks", "web"]),
];

/// Crates of the registry, each with the list of our crates that may name it under `[dependencies]`.
const FENCED_LIBRARIES: &[(&str, &[&str])] = &[
    ("rusqlite", &["db"]),
    ("sqlx", &["db"]),
    ("axum", &["web", "checkout", "settled"]),
    ("hyper", &["web"]),
    ("lettre", &["mail"]),
    ("reqwest", &["rpc", "settled"]),
    ("tokio", &["btc", "db", "evm", "mail", "money", "rpc", "settled", "signer", "simnet", "tasks", "tron", "web"]),
];

/// The top-level modules (rooms) of the root package, each with the list of other rooms that it may use by `crate::…`.
const ROOMS: &[(&str, &[&str])] = &[
    ("feeds", &[]),
    ("workers", &["feeds"]),
    ("ops", &["daemon", "workers"]),
    ("daemon", &["feeds", "workers"]),
    ("control", &[]),
    ("commands", &["control", "daemon", "feeds", "ops", "workers"]),
];

/// Crates, each with the list of rooms of the root package that may name it.
const FENCED_IN_ROOMS: &[(&str, &[&str])] = &[
    ("axum", &["daemon"]),
    ("reqwest", &["feeds", "commands"]),
    ("rpc", &["daemon"]),
    ("btc", &["daemon", "commands"]),
    ("evm", &["daemon", "commands"]),
    ("tron", &["daemon", "commands"]),
    ("simnet", &["daemon", "commands"]),
    ("signer", &["commands"]),
    // The commands need the currency of the surface, to say which products it hides.
    ("checkout", &["daemon", "commands"]),
];

/// Stores that read tables of another store, each with the list of these tables.
const FOREIGN_READS: &[(&str, &[&str])] = &[
    // A token is valid only while its user is active.
    ("src/access/tokens/store.rs", &["users"]),
    // The audit compares every table of `money` with the postings.
    ("src/money/audit/store.rs", &["accounts", "balances", "deposits", "invoices", "payments"]),
    // The statement that locks a cursor also says if the chain has deposits to confirm, which saves a round trip.
    ("src/money/cursors/store.rs", &["deposits", "unclaimed_transfers"]),
    // A transfer is matched by the address's key, and classified by its invoice; both in the statement that locks.
    // A balance is compared with the initial balance of its address.
    (
        "src/money/deposits/store.rs",
        &[
            "address_leases",
            "addresses",
            "blocks",
            "initial_balances",
            "invoices",
            "reviews",
            "unclaimed_transfers",
            "unconfirmed",
        ],
    ),
    // The state of an invoice is shown with its address, the chain's cursor and its unconfirmed transfers. The lock by
    // address also reads the height of the address's lease.
    ("src/money/invoices/store.rs", &["address_leases", "addresses", "cursors", "deposits", "unconfirmed"]),
    ("src/money/unconfirmed/store.rs", &["addresses", "deposits", "invoices"]),
    // The order status is one statement, because it is polled most.
    (
        "src/shop/orders/store.rs",
        &["addresses", "cursors", "deposits", "invoices", "payments", "products", "skus", "unconfirmed"],
    ),
    // The audit of the stock compares each SKU's count with its items.
    ("src/shop/stock/store.rs", &["skus"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the paths of all Rust sources under a folder, sorted.
fn sources(folder: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// Returns true for files that are only compiled for tests.
fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    matches!(name.as_ref(), "tests.rs" | "testing.rs" | "fixture.rs")
        || path.components().any(|component| component.as_os_str() == "tests")
}

/// Returns the tokens of a file without its `#[cfg(test)] mod tests { … }`.
fn tokens(path: &Path) -> TokenStream {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    TokenStream::from_str(code).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns all Rust paths in the tokens, such as `crate::workers::Wake`. Grouped imports are expanded.
fn paths(stream: TokenStream) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    collect_paths(stream, &[], &mut found);
    found
}

fn collect_paths(stream: TokenStream, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(first) => {
                let mut path = prefix.to_vec();
                path.push(first.to_string());
                at += 1;
                while is_colon(at) && is_colon(at + 1) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            collect_paths(group.stream(), &path, found);
                        }
                        _ => {}
                    }
                    at += 3;
                }
                found.push(path);
            }
            TokenTree::Group(group) => {
                collect_paths(group.stream(), &[], found);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Returns all literals in the tokens.
fn literals(stream: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in stream {
        match token {
            TokenTree::Literal(literal) => found.push(literal.to_string()),
            TokenTree::Group(group) => found.extend(literals(group.stream())),
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
    found
}

/// Returns the words of a text in lower case. A full stop ends a word, so `orders.id` contains the word `orders`.
fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    split.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn report(offences: &[String]) {
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

fn manifest(folder: &Path) -> toml::Table {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the folders that an entry of the workspace's lists stands for. `chains/*` stands for each folder below
/// `chains`.
fn expand(entry: &str) -> Vec<PathBuf> {
    match entry.strip_suffix("/*") {
        None => vec![root().join(entry)],
        Some(parent) => {
            let entries = fs::read_dir(root().join(parent)).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.join("Cargo.toml").is_file()).collect()
        }
    }
}

fn workspace_list(key: &str) -> Vec<PathBuf> {
    let workspace = manifest(&root());
    let list = workspace["workspace"][key].as_array().unwrap().clone();
    let mut folders: Vec<PathBuf> = list.iter().flat_map(|entry| expand(entry.as_str().unwrap())).collect();
    folders.sort();
    folders
}

/// Returns the names and direct dependencies of our crates outside `tests`.
fn product_crates() -> BTreeMap<String, BTreeSet<String>> {
    let folders = workspace_list("members").into_iter().filter(|folder| !folder.starts_with(root().join("tests")));
    let describe = |folder: PathBuf| {
        let manifest = manifest(&folder);
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let required = |value: &toml::Value| value.get("optional").and_then(toml::Value::as_bool) != Some(true);
        (name, dependencies.into_iter().filter(|(_, value)| required(value)).map(|(name, _)| name).collect())
    };
    folders.map(describe).collect()
}

#[test]
fn crates_depend_on_what_they_may() {
    let crates = product_crates();
    let mut offences = Vec::new();
    for (name, dependencies) in crates.iter().filter(|(name, _)| *name != "settled") {
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| known == name) else {
            offences.push(format!("`{name}` is in no rule"));
            continue;
        };
        for used in dependencies.iter().filter(|used| crates.contains_key(*used)) {
            if !allowed.contains(&used.as_str()) {
                offences.push(format!("`{name}` may not depend on `{used}`"));
            }
        }
    }
    for (library, allowed) in FENCED_LIBRARIES {
        for (name, _) in crates.iter().filter(|(_, dependencies)| dependencies.contains(*library)) {
            if !allowed.contains(&name.as_str()) {
                offences.push(format!("`{name}` may not depend on `{library}`"));
            }
        }
    }
    report(&offences);
}

/// A plain `cargo test` runs the tests of every product crate.
#[test]
fn default_members_are_all_product_crates() {
    let product: Vec<PathBuf> =
        workspace_list("members").into_iter().filter(|folder| !folder.starts_with(root().join("tests"))).collect();
    assert_eq!(workspace_list("default-members"), product);
}

/// Returns the room of the root package to which a file belongs; `None` for files of other crates.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let room = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
    ROOMS.iter().any(|(name, _)| *name == room).then_some(room)
}

#[test]
fn rooms_of_the_root_package_use_what_they_may() {
    let mut offences = Vec::new();
    for path in sources("src").iter().filter(|path| !is_test(path)) {
        let Some(room) = room_of(path) else { continue };
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).unwrap();
        for used in paths(tokens(path)) {
            let first = used[0].as_str();
            if first == "crate" && used.len() > 1 && used[1] != room && !allowed.contains(&used[1].as_str()) {
                offences.push(format!("{}: `{room}` may not use `{}`", relative(path), used.join("::")));
            }
            let fence = FENCED_IN_ROOMS.iter().find(|(fenced, _)| *fenced == first && used.len() > 1);
            if fence.is_some_and(|(_, rooms)| !rooms.contains(&room.as_str())) {
                offences.push(format!("{}: `{room}` may not name `{first}`", relative(path)));
            }
        }
    }
    report(&offences);
}

/// Returns true for files that may contain SQL: stores, the crate `db`, and tests.
fn may_hold_sql(path: &Path) -> bool {
    path.file_name().unwrap() == "store.rs" || path.starts_with(root().join("src/db")) || is_test(path)
}

#[test]
fn sql_stands_in_stores_only() {
    let mut offences = Vec::new();
    for path in sources("src").iter().filter(|path| !may_hold_sql(path)) {
        for literal in literals(tokens(path)) {
            let sql = ["select", "insert into", "update", "delete from"]
                .iter()
                .any(|keyword| literal.trim_start_matches('"').to_lowercase().starts_with(&format!("{keyword} ")));
            let tables = tables();
            if sql && words(&literal).iter().any(|word| tables.contains(word)) {
                offences.push(format!("{}: SQL outside a store: {literal}", relative(path)));
            }
        }
    }
    report(&offences);
}

/// Returns the names of all tables of the schema.
fn tables() -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
    for entry in fs::read_dir(root().join("migrations/sqlite")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("create table "));
        tables.extend(lines.map(|line| line.split_whitespace().next().unwrap().to_owned()));
    }
    assert!(tables.len() > 20, "the migrations are read: {tables:?}");
    tables
}

/// Returns the tables that a statement writes, and the tables that it names.
fn tables_of(sql: &str, tables: &BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
    let words = words(sql);
    let named = |word: &String| tables.contains(word);
    let written = words.windows(2).filter(|pair| matches!(pair[0].as_str(), "into" | "update")).map(|pair| &pair[1]);
    let deleted = words.windows(3).filter(|three| three[0] == "delete" && three[1] == "from").map(|three| &three[2]);
    let written: BTreeSet<String> = written.chain(deleted).filter(|word| named(word)).cloned().collect();
    let sources = words.windows(2).filter(|pair| matches!(pair[0].as_str(), "from" | "join")).map(|pair| &pair[1]);
    // A comma also joins tables, as in `from given, addresses a`.
    let joined = sql.split(',').skip(1).filter_map(|part| {
        let mut parts = part.split_whitespace();
        let (table, alias) = (parts.next()?, parts.next()?);
        (tables.contains(table) && alias.len() <= 2).then(|| table.to_owned())
    });
    let read: BTreeSet<String> = sources.filter(|word| named(word)).cloned().chain(joined).collect();
    (written, read)
}

#[test]
fn every_table_has_one_writing_store_and_foreign_reads_are_listed() {
    let tables = tables();
    let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources("src").iter().filter(|path| path.file_name().unwrap() == "store.rs") {
        let store = relative(path);
        for sql in &literals(tokens(path)) {
            let (written, read) = tables_of(sql, &tables);
            for table in written {
                writers.entry(table).or_default().insert(store.clone());
            }
            for table in read {
                readers.entry(store.clone()).or_default().insert(table);
            }
        }
    }
    let mut offences = Vec::new();
    for (table, stores) in writers.iter().filter(|(_, stores)| stores.len() > 1) {
        offences.push(format!("`{table}` is written by {stores:?}"));
    }
    for (store, read) in readers {
        let listed = FOREIGN_READS.iter().find(|(reader, _)| *reader == store).map_or(&[][..], |(_, tables)| *tables);
        let foreign = |table: &&String| writers.get(*table).is_some_and(|owners| !owners.contains(&store));
        let unlisted: Vec<&String> =
            read.iter().filter(foreign).filter(|table| !listed.contains(&table.as_str())).collect();
        if !unlisted.is_empty() {
            offences.push(format!("{store} reads {unlisted:?} of other stores, and FOREIGN_READS does not list it"));
        }
        for table in listed.iter().filter(|table| !read.contains(**table)) {
            offences.push(format!("{store} does not read `{table}` any more: take it off FOREIGN_READS"));
        }
    }
    report(&offences);
}

/// Only a store may create a value of the type `Locked`, because only a store locks rows.
#[test]
fn locks_are_taken_in_stores_only() {
    let mut offences = Vec::new();
    for path in sources("src").iter().filter(|path| !may_hold_sql(path)) {
        if paths(tokens(path)).iter().any(|used| used.ends_with(&["Locked".to_owned(), "new".to_owned()])) {
            offences.push(format!("{}: `Locked::new` outside a store", relative(path)));
        }
    }
    report(&offences);
}

#[test]
fn machines_are_pure() {
    let impure = ["async", "await", "Tx", "Db", "Clock", "tokio", "reqwest"];
    let mut offences = Vec::new();
    for path in sources("src").iter().chain(&sources("chains")) {
        let name = path.file_name().unwrap().to_string_lossy();
        let is_machine = matches!(name.as_ref(), "machine.rs" | "discount.rs" | "retry_schedule.rs");
        if !is_machine && !path.parent().unwrap().ends_with("machine") {
            continue;
        }
        for used in paths(tokens(path)).iter().flatten() {
            if impure.contains(&used.as_str()) {
                offences.push(format!("{}: `{used}` in a machine", relative(path)));
            }
        }
    }
    report(&offences);
}

#[test]
fn no_file_is_named_after_a_drawer() {
    let mut offences = Vec::new();
    for path in sources("src").iter().chain(&sources("chains")) {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let parent = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        for bad in ["utils", "util", "common", "helpers", "types", "models", "misc"] {
            if stem == bad || parent == bad {
                offences.push(format!("{}: find the noun", relative(path)));
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

/// No source of the product uses a binary floating-point number.
#[test]
fn no_floats() {
    let mut offences = Vec::new();
    for path in sources("src").iter().chain(&sources("chains")) {
        let text = fs::read_to_string(path).unwrap();
        let stream = TokenStream::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if paths(stream).iter().flatten().any(|word| word == "f32" || word == "f64") {
            offences.push(format!("{}: a floating point number", relative(path)));
        }
    }
    report(&offences);
}
