use chain::AssetId;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, read, write};
use crate::users::{self, CreateError, NewUser, State};
use money::pricing::Currency;

db::both! {
    async fn a_name_is_one_user_of_a_shop(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let owner = shop.shop;
        let user = shop.user("ann").await;
        let create = |name: &'static str| shop.db.write("create", move |tx| Box::pin(users::create(
            tx, NOW, owner, NewUser { public_id: Uuid::new_v4(), name: name.into(), email: None },
        )));
        assert!(matches!(create("ann").await, Err(CreateError::NameTaken)));
        assert!(matches!(create("").await, Err(CreateError::BadName)));
        write(&shop.db, move |tx| Box::pin(users::set_state(tx, user, State::Disabled))).await;
        let found = read(&shop.db, move |tx| Box::pin(users::find_by_name(tx, owner, "ann"))).await.unwrap();
        assert_eq!((found.id, found.state, found.created_at), (user, State::Disabled, NOW));
    }

    async fn credit_is_given_once_for_each_entry(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let (owner, user) = (shop.shop, shop.user("ann").await);
        let give = |entry: &'static str| shop.db.write("credit", move |tx| Box::pin(async move {
            users::credit(tx, NOW, owner, user, AssetId::fiat("CNY"), 500_u64.into(), entry).await
        }));
        give("credit/1").await.unwrap();
        give("credit/1").await.unwrap_err();
        give("credit/2").await.unwrap();
        assert_eq!(shop.balance(user, Currency::CNY).await, "1000");
        assert_eq!(shop.balance(user, Currency::USD).await, "0");
    }
}
