#!/usr/bin/env escript
%% RabbitMQ's own client for Erlang against any AMQP 0-9-1 broker: what its federation and its shovels are built on.
%%
%%     ERL_LIBS=.../plugins escript erlang_client.escript --ca F --certificate F --key F --port N --vhost V
%%
%% Prints a line for each step and ends with 0 if all of them went as they must.
-mode(compile).
-include_lib("amqp_client/include/amqp_client.hrl").

-define(PATIENCE_MS, 30000).
-define(COUNT, 500).

main(Arguments) ->
    logger:set_primary_config(level, error),
    {ok, _} = application:ensure_all_started(amqp_client),
    {ok, Connection} = amqp_connection:start(parameters(options(Arguments))),
    step("connected"),
    {ok, Channel} = amqp_connection:open_channel(Connection),
    queue(Channel),
    confirms(Channel),
    returns(Channel),
    cancellation(Connection),
    refusals(Connection),
    flood(Connection),
    ok = amqp_channel:close(Channel),
    ok = amqp_connection:close(Connection),
    step("closed").

step(Words) -> io:format("~s~n", [Words]).

options(["--" ++ Name, Value | Rest]) -> maps:put(Name, Value, options(Rest));
options([]) -> #{}.

parameters(#{"ca" := Ca, "certificate" := Certificate, "key" := Key, "port" := Port, "vhost" := Vhost}) ->
    #amqp_params_network{
        host = "localhost",
        port = list_to_integer(Port),
        virtual_host = list_to_binary(Vhost),
        heartbeat = 5,
        auth_mechanisms = [fun amqp_auth_mechanisms:external/3],
        ssl_options = [
            {cacertfile, Ca},
            {certfile, Certificate},
            {keyfile, Key},
            {verify, verify_peer},
            {server_name_indication, "localhost"},
            {versions, ['tlsv1.3']}
        ]
    }.

declare(Channel, Declare) ->
    #'queue.declare_ok'{queue = Queue} = amqp_channel:call(Channel, Declare),
    Queue.

received() ->
    receive
        Message -> Message
    after ?PATIENCE_MS -> error(nothing_came)
    end.

%% Declared, bound, published to, consumed, acknowledged.
queue(Channel) ->
    Queue = declare(Channel, #'queue.declare'{exclusive = true}),
    #'exchange.declare_ok'{} = amqp_channel:call(Channel, #'exchange.declare'{exchange = <<"erlang">>, type = <<"topic">>}),
    Bind = #'queue.bind'{queue = Queue, exchange = <<"erlang">>, routing_key = <<"a.#">>},
    #'queue.bind_ok'{} = amqp_channel:call(Channel, Bind),
    #'basic.qos_ok'{} = amqp_channel:call(Channel, #'basic.qos'{prefetch_count = 10}),
    #'basic.consume_ok'{consumer_tag = Tag} =
        amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue}, self()),
    #'basic.consume_ok'{} = received(),
    Properties = #'P_basic'{headers = [{<<"name">>, longstr, <<"value">>}, {<<"deep">>, table, [{<<"n">>, long, 5}]}]},
    [
        amqp_channel:cast(
            Channel,
            #'basic.publish'{exchange = <<"erlang">>, routing_key = <<"a.b">>},
            #amqp_msg{props = Properties, payload = integer_to_binary(Number)}
        )
     || Number <- lists:seq(1, ?COUNT)
    ],
    [
        begin
            {#'basic.deliver'{delivery_tag = Delivery}, #amqp_msg{props = #'P_basic'{headers = Headers}, payload = Body}} =
                received(),
            Body = integer_to_binary(Number),
            Headers = Properties#'P_basic'.headers,
            amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Delivery})
        end
     || Number <- lists:seq(1, ?COUNT)
    ],
    #'basic.cancel_ok'{} = amqp_channel:call(Channel, #'basic.cancel'{consumer_tag = Tag}),
    #'basic.cancel_ok'{} = received(),
    #'queue.delete_ok'{message_count = 0} = amqp_channel:call(Channel, #'queue.delete'{queue = Queue}),
    #'exchange.delete_ok'{} = amqp_channel:call(Channel, #'exchange.delete'{exchange = <<"erlang">>}),
    step("declared, bound, published, consumed and acknowledged").

%% Each published message is confirmed.
confirms(Channel) ->
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    Queue = declare(Channel, #'queue.declare'{exclusive = true}),
    [
        amqp_channel:cast(Channel, #'basic.publish'{routing_key = Queue}, #amqp_msg{payload = <<"x">>})
     || _ <- lists:seq(1, ?COUNT)
    ],
    true = amqp_channel:wait_for_confirms_or_die(Channel, ?PATIENCE_MS div 1000),
    #'queue.purge_ok'{message_count = ?COUNT} = amqp_channel:call(Channel, #'queue.purge'{queue = Queue}),
    step("confirmed and purged").

%% What reaches nobody comes back, and is confirmed all the same.
returns(Channel) ->
    ok = amqp_channel:register_return_handler(Channel, self()),
    Publish = #'basic.publish'{exchange = <<"amq.direct">>, routing_key = <<"nobody">>, mandatory = true},
    ok = amqp_channel:call(Channel, Publish, #amqp_msg{payload = <<"back">>}),
    {#'basic.return'{reply_code = 312, reply_text = <<"NO_ROUTE">>}, #amqp_msg{payload = <<"back">>}} = received(),
    true = amqp_channel:wait_for_confirms_or_die(Channel, ?PATIENCE_MS div 1000),
    step("returned").

%% A consumer hears that its queue was deleted.
cancellation(Connection) ->
    {ok, Channel} = amqp_connection:open_channel(Connection),
    {ok, Other} = amqp_connection:open_channel(Connection),
    Queue = declare(Channel, #'queue.declare'{queue = <<"erlang.vanishes">>}),
    #'basic.consume_ok'{consumer_tag = Tag} =
        amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue}, self()),
    #'basic.consume_ok'{} = received(),
    #'queue.delete_ok'{} = amqp_channel:call(Other, #'queue.delete'{queue = Queue}),
    #'basic.cancel'{consumer_tag = Tag} = received(),
    [ok = amqp_channel:close(Each) || Each <- [Channel, Other]],
    step("cancelled by the broker").

%% A refusal ends its channel and nothing else.
refusals(Connection) ->
    [
        begin
            {ok, Channel} = amqp_connection:open_channel(Connection),
            {Code, _} =
                try amqp_channel:call(Channel, Method) of
                    Answer -> {allowed, Answer}
                catch
                    exit:{{shutdown, {server_initiated_close, Number, Text}}, _} -> {Number, Text}
                end
        end
     || {Code, Method} <- [
            {404, #'queue.declare'{queue = <<"no-such">>, passive = true}},
            {404, #'queue.bind'{queue = <<"no-such">>, exchange = <<"amq.direct">>}},
            {403, #'queue.declare'{queue = <<"amq.mine">>}},
            {406, #'queue.declare'{queue = <<"odd">>, arguments = [{<<"x-expires">>, long, 0}]}}
        ]
    ],
    step("refused").

%% Large messages both ways over one connection while small ones pass.
flood(Connection) ->
    {ok, Channel} = amqp_connection:open_channel(Connection),
    Queue = declare(Channel, #'queue.declare'{exclusive = true}),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    Body = binary:copy(<<"0123456789">>, 100000),
    #'basic.consume_ok'{} = amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue, no_ack = true}, self()),
    #'basic.consume_ok'{} = received(),
    [amqp_channel:cast(Channel, #'basic.publish'{routing_key = Queue}, #amqp_msg{payload = Body}) || _ <- lists:seq(1, 20)],
    [{#'basic.deliver'{}, #amqp_msg{payload = Body}} = received() || _ <- lists:seq(1, 20)],
    true = amqp_channel:wait_for_confirms_or_die(Channel, ?PATIENCE_MS div 1000),
    ok = amqp_channel:close(Channel),
    step("twenty megabytes there and back").
