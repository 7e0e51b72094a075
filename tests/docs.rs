//! The pages that customers are given: what they say to type works, and both languages say the same. And the maps that
//! this crate's own readers are given.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use mail_account::{MailApp, check::Cause};

const PAGES: [&str; 2] = ["move-to-graph.md", "move-to-graph.nl.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The blocks of code of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside = None::<(bool, String)>;
    for line in page.lines() {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(name)) => inside = Some((name == language, String::new())),
            (Some(_), Some(_)) => blocks.extend(inside.take().filter(|(wanted, _)| *wanted).map(|(_, text)| text)),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block does not end");
    blocks
}

fn codes(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn the_configuration_loads_before_and_after_the_swap() {
    for name in PAGES {
        let page = page(name);
        let [whole] = &blocks(&page, "toml")[..] else { panic!("{name} has one configuration") };
        let [line] = &blocks(&page, "toml-part")[..] else { panic!("{name} has one line to change") };
        let before = "accounts = [\"invoices-basic\"]\n";
        assert!(whole.contains(before), "{whole}");
        for text in [whole.clone(), whole.replace(before, line)] {
            let app = MailApp::from_str(&text, ".").unwrap_or_else(|e| panic!("{name}: {}", e.chain()));
            for account in app.accounts() {
                assert!(account.problem.is_none(), "{name}: {:?}", account.problem);
            }
            app.job("emailed-invoices").unwrap();
            let names: BTreeSet<_> = app.accounts().filter_map(|a| a.mailbox).map(|mailbox| mailbox.name).collect();
            assert_eq!(names.len(), 1, "the swap would stop: {names:?}");
        }
    }
}

#[test]
fn the_commands_exist_and_name_what_the_configuration_has() {
    for name in PAGES {
        let page = page(name);
        let app = MailApp::from_str(&blocks(&page, "toml")[0], ".").unwrap();
        let commands = blocks(&page, "sh").concat();
        let mut examples = Vec::new();
        for line in commands.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let ["cargo", "run", "--example", example, "--", rest @ ..] = &words[..] else { panic!("{line}") };
            examples.push(*example);
            for pair in rest.chunks(2) {
                match pair {
                    ["--config", "mail.toml"] | ["--lang", "nl"] => {}
                    ["--account" | "--to", account] => assert!(app.accounts().any(|a| a.name == *account), "{line}"),
                    ["--job", job] => assert!(app.job(job).is_ok(), "{line}"),
                    other => panic!("{other:?} in {line}"),
                }
            }
            let source = root().join("examples").join(format!("{example}.rs"));
            assert!(source.exists(), "{line}");
        }
        assert_eq!(examples, ["check", "swap"]);
    }
}

#[test]
fn both_languages_name_the_same_causes_and_they_exist() {
    let [english, dutch] = PAGES.map(page);
    let known: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    let named: BTreeSet<_> = codes(&english).into_iter().filter(|code| *code != "code").collect();
    assert!(named.len() > 15 && named.is_subset(&known), "{:?}", named.difference(&known));
    assert_eq!(codes(&english), codes(&dutch));
    assert_eq!(blocks(&english, "toml"), blocks(&dutch, "toml"));
    assert_eq!(english.matches("\n## ").count(), dutch.matches("\n## ").count());
    // Pages are named, never linked: their addresses change.
    for page in [&english, &dutch] {
        assert!(!page.contains("http"), "an address");
    }
}

/// Every folder below this one, itself included.
fn folders(top: PathBuf) -> Vec<PathBuf> {
    let below = fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut all: Vec<_> = below.flat_map(folders).collect();
    all.push(top);
    all
}

#[test]
fn the_map_of_a_folder_names_every_file_in_it() {
    let mut maps = 0;
    for folder in folders(root().join("src")) {
        let Ok(source) = fs::read_to_string(folder.join("mod.rs")) else { continue };
        let map: String = source.lines().take_while(|line| line.starts_with("//!")).collect();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let slash = if entry.file_type().unwrap().is_dir() { "/" } else { "" };
            let name = format!("`{}{slash}`", entry.file_name().to_str().unwrap());
            assert!(name == "`mod.rs`" || map.contains(&name), "{}: the map has no {name}", folder.display());
        }
        maps += 1;
    }
    assert!(maps > 20, "{maps} maps");
}

#[test]
fn the_configurations_of_the_readme_load() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let configurations = blocks(&readme, "toml");
    assert_eq!(configurations.len(), 2);
    for text in configurations {
        let app = MailApp::from_str(&text, ".").unwrap_or_else(|e| panic!("{}", e.chain()));
        assert!(app.accounts().count() == 1 && app.accounts().all(|account| account.problem.is_none()), "{text}");
    }
}

#[test]
fn the_readme_shows_every_example_and_every_page() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let listed = |folder: &str, end: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.filter_map(|name| name.to_str().and_then(|name| name.strip_suffix(end)).map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    for example in listed("examples", ".rs") {
        assert!(readme.contains(&format!("cargo run --example {example} ")), "no command line for {example}");
    }
    for page in listed("docs", ".md") {
        assert!(readme.contains(&format!("(docs/{page}.md)")), "no link to {page}");
    }
}
