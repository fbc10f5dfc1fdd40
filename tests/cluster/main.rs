//! FerroLB on a real cluster: a real API server, a real kube-proxy, and a client on the wire that judges. Needs root rights; each test
//! raises a lab of its own, one lab at a time, since several on two cores would disturb each other's timing.

mod api_outage;
mod bad_input;
mod client_wire;
mod controller_outage;
mod hostile_frames;
mod labs;
mod metrics;
mod node_death;
mod planned_stop;
mod pools;
mod privileges;
mod proxy_modes;
mod served;
mod services;
mod several;
mod stage;
mod wrong_flags;
