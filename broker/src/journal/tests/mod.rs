mod crash;
mod damage;
mod model;
mod records;
mod running;
