//! Statements of which later ones bind what earlier ones returned.
//!
//! PostgreSQL runs a chain as one statement, because each costs a round trip there; SQLite runs its links one after another.
//! So a link sees nothing of earlier ones but what they returned, and every link returns a column `id`.

use std::marker::PhantomData;

use crate::{Bind, Error, FromValue};

/// `let order = statement!(chain, "insert into … returning id", a)` promises an id that later links bind like any value.
#[derive(Debug, Default)]
pub struct Batch {
    links: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Statement {
    pub sql: &'static str,
    pub binds: Vec<Bind>,
}

/// What a link will have returned.
#[derive(Debug)]
pub struct ResultRef<T> {
    link: usize,
    id: PhantomData<fn() -> T>,
}

/// What the links returned.
#[derive(Debug)]
pub struct BatchResult {
    pub(super) links: Vec<Ids>,
}

/// Of one link: how many rows, and the least id of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub rows: u64,
    pub first: Option<i64>,
}

impl Batch {
    pub fn add<T>(&mut self, sql: &'static str, binds: Vec<Bind>) -> ResultRef<T> {
        self.links.push(Statement { sql, binds });
        ResultRef { link: self.links.len() - 1, id: PhantomData }
    }

    pub(super) fn into_links(self) -> Vec<Statement> {
        self.links
    }
}

impl<T> Clone for ResultRef<T> {
    fn clone(&self) -> ResultRef<T> {
        *self
    }
}

impl<T> Copy for ResultRef<T> {}

impl<T> From<ResultRef<T>> for Bind {
    fn from(returned: ResultRef<T>) -> Bind {
        Bind::ResultRef(returned.link)
    }
}

impl BatchResult {
    /// How many rows a link returned.
    pub fn rows<T>(&self, of: ResultRef<T>) -> u64 {
        self.links.get(of.link).map_or(0, |ids| ids.rows)
    }

    /// The id of the one row that a link returned.
    pub fn id<T: FromValue>(&self, of: ResultRef<T>) -> Result<T, Error> {
        let found = self.rows(of);
        let first = self.links.get(of.link).and_then(|ids| ids.first).filter(|_| found == 1);
        let first = first.ok_or(Error::Changed { expected: 1, found })?;
        T::from_value(&Bind::Int(first))
            .ok_or_else(|| Error::Value { column: "id".into(), reason: "no such id".into() })
    }
}

impl Statement {
    /// The values, with those in place that earlier links returned.
    pub fn resolve(self, earlier: &[Ids]) -> Result<(&'static str, Vec<Bind>), Error> {
        let resolve = |bind| match bind {
            Bind::ResultRef(link) => {
                let ids = earlier.get(link).ok_or_else(|| not_earlier(link))?;
                Ok(ids.first.map_or(Bind::Null, Bind::Int))
            }
            known @ (Bind::Null | Bind::Int(_) | Bind::Text(_) | Bind::Blob(_) | Bind::TooLarge(_)) => Ok(known),
        };
        Ok((self.sql, self.binds.into_iter().map(resolve).collect::<Result<_, Error>>()?))
    }
}

/// All links as one statement of PostgreSQL, which returns of each how many rows it returned and the least id.
pub(super) fn join(links: Vec<Statement>) -> Result<(String, Vec<Bind>), Error> {
    let (mut sql, mut all) = (String::with_capacity(4096), Vec::new());
    let mut answer = String::from(" select ");
    for (number, link) in links.into_iter().enumerate() {
        let (opening, comma) = if number == 0 { ("with ", "") } else { (", ", ", ") };
        sql += &format!("{opening}l{number} as (");
        join_link(&mut sql, &mut all, number, link)?;
        sql.push(')');
        answer += &format!("{comma}(select count(*) from l{number}), (select min(id) from l{number})");
    }
    sql += &answer;
    Ok((sql, all))
}

/// The places of one link are numbered on from those of the links before it.
fn join_link(sql: &mut String, all: &mut Vec<Bind>, number: usize, link: Statement) -> Result<(), Error> {
    let mut places = Vec::with_capacity(link.binds.len());
    for bind in link.binds {
        if let Bind::ResultRef(earlier) = bind {
            if earlier >= number {
                return Err(not_earlier(earlier));
            }
            places.push(format!("(select id from l{earlier})"));
        } else {
            all.push(bind);
            places.push(format!("${}", all.len()));
        }
    }
    let mut parts = link.sql.split('$');
    sql.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (place, rest) = part.split_at(digits);
        let place = place.parse::<usize>().ok().and_then(|place| places.get(place.checked_sub(1)?));
        sql.push_str(place.ok_or_else(|| Error::Statement(format!("a place without a value in: {}", link.sql)))?);
        sql.push_str(rest);
    }
    Ok(())
}

fn not_earlier(link: usize) -> Error {
    Error::Statement(format!("what link {link} returns was bound before it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_through_and_returned_ids_are_looked_up() {
        let mut chain = Batch::default();
        let order: ResultRef<i64> =
            chain.add("insert into o (a, b) values ($2, $1) returning id", vec![1.into(), 2.into()]);
        let _line: ResultRef<i64> =
            chain.add("insert into l (o, c, d) values ($1, $2, $2) returning id", vec![order.into(), 3.into()]);
        let (sql, binds) = join(chain.into_links()).unwrap();
        assert_eq!(
            sql,
            "with l0 as (insert into o (a, b) values ($2, $1) returning id), \
             l1 as (insert into l (o, c, d) values ((select id from l0), $3, $3) returning id) \
             select (select count(*) from l0), (select min(id) from l0), (select count(*) from l1), (select min(id) from l1)"
        );
        assert!(binds == [1.into(), 2.into(), 3.into()]);
    }

    #[test]
    fn nothing_is_bound_before_it_is_returned() {
        let mut other = Batch::default();
        let _first: ResultRef<i64> = other.add("insert into a default values returning id", Vec::new());
        let second: ResultRef<i64> = other.add("insert into a default values returning id", Vec::new());
        let link = || Statement { sql: "insert into b values ($1) returning id", binds: vec![second.into()] };
        assert!(matches!(link().resolve(&[Ids::default()]), Err(Error::Statement(_))));
        assert!(matches!(join(vec![link()]), Err(Error::Statement(_))));
    }
}
