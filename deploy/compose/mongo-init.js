// Run once by `mongo-init` at every `docker compose up`, as root over a direct connection. Makes the replica set, and the application's
// user with the password of today's .env. Safe to run again, and after having been cut short anywhere.

const PRIMARY_WITHIN_S = 60;

const hello = () => db.adminCommand({ hello: 1 });

if (!hello().setName) {
  try {
    // The name that is announced is the one other containers know this member by.
    rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongo:27017" }] });
    print("replica set rs0 made");
  } catch (error) {
    if (error.codeName !== "AlreadyInitialized") throw error;
  }
}

const tries = PRIMARY_WITHIN_S * 4;
for (let i = 0; i < tries && !hello().isWritablePrimary; i++) sleep(250);
if (!hello().isWritablePrimary) {
  print(`no primary after ${PRIMARY_WITHIN_S} s`);
  quit(1);
}

const cargoflow = db.getSiblingDB("cargoflow");
const account = { pwd: process.env.MONGO_APP_PASSWORD, roles: [{ role: "readWrite", db: "cargoflow" }] };
if (cargoflow.getUser("cargoflow")) {
  cargoflow.updateUser("cargoflow", account);
  print("user cargoflow is there, with the password of .env");
} else {
  cargoflow.createUser({ user: "cargoflow", ...account });
  print("user cargoflow made");
}
