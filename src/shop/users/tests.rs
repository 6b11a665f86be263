use uuid::Uuid;

use crate::fixture::{Fixture, NOW, OPERATOR, run_read, run_write};
use crate::users::{self, CreateUserError, Credit, CreditError, NewUser, State};
use money::pricing::Currency;

db::both! {
    async fn a_name_belongs_to_one_user_of_a_shop(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let owner = shop.shop;
        let user = shop.create_user("ann").await;
        let create = |name: &'static str| shop.db.write("create", move |tx| Box::pin(users::create_user(
            tx, NOW, &OPERATOR, owner, NewUser { public_id: Uuid::new_v4(), name: name.into(), email: None },
        )));
        assert!(matches!(create("ann").await, Err(CreateUserError::NameTaken)));
        assert!(matches!(create("").await, Err(CreateUserError::BadName)));
        let id = user.id;
        run_write(&shop.db, move |tx| Box::pin(async move {
            users::set_user_state(tx, NOW, &OPERATOR, &user, State::Disabled).await
        })).await;
        let found = run_read(&shop.db, move |tx| Box::pin(users::find_user_by_name(tx, owner, "ann"))).await.unwrap();
        assert_eq!((found.id, found.state, found.created_at), (id, State::Disabled, NOW));
    }

    async fn credit_is_booked_once_for_each_reference(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let (owner, user) = (shop.shop, shop.create_user("ann").await);
        let credit = |reference: &'static str| {
            let user = user.clone();
            shop.db.write("credit", move |tx| Box::pin(async move {
                let credit = Credit { currency: Currency::CNY, amount: 500_u64.into(), reference: reference.into() };
                users::credit_user_balance(tx, NOW, &OPERATOR, owner, &user, credit).await
            }))
        };
        assert_eq!(credit("1").await.unwrap().to_string(), "500");
        assert!(matches!(credit("1").await, Err(CreditError::ReferenceUsed(reference)) if reference == "1"));
        assert!(matches!(credit("").await, Err(CreditError::BadReference)));
        credit("2").await.unwrap();
        assert_eq!(shop.load_balance(&user, Currency::CNY).await, "1000");
        assert_eq!(shop.load_balance(&user, Currency::USD).await, "0");
    }
}
