//! FerroLB on a real cluster: a real API server, a real kube-proxy, and a client on the wire that judges. Needs root rights; each test
//! raises a lab of its own, one lab at a time, since several on two cores would disturb each other's timing.

mod allocation;
mod announced;
mod api_outage;
mod api_return;
mod bad_input;
mod client_wire;
mod controller_outage;
mod evidence;
mod families;
mod frozen;
mod hostile_frames;
mod ip_mode;
mod ipv6;
mod labs;
mod leader_death;
mod ledger;
mod links;
mod lost_frames;
mod neighbour;
mod node_death;
mod one_wire;
mod planned_stop;
mod pools;
mod power_cut;
mod privileges;
mod proxy_modes;
mod quarrel;
mod refusals;
mod relay;
mod rival;
mod rules;
mod served;
mod services;
mod several;
mod sharing;
mod slow_api;
mod spoilt;
mod stage;
mod statuses;
mod strangers;
mod takeover;
mod types;
mod wrong_flags;

use ferrolb_tests::lab::admin as metrics;
