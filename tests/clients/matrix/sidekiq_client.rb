# Uses Sidekiq as applications do: one worker process runs 20 jobs.
#
#   ruby sidekiq_client.rb work PORT

# The worker loads this file again, only for the job class.
return if defined?(Job)

require "sidekiq"

abort "sidekiq_client.rb: only the scenario work" unless ARGV[0] == "work" && ARGV[2] != "cluster"
PREFIX = "sidekiq:#{Process.pid}"
ENV["REDIS_URL"] = "redis://127.0.0.1:#{ARGV[1]}"

class Job
  include Sidekiq::Job
  sidekiq_options queue: PREFIX

  def perform(number)
    Sidekiq.redis { |r| r.call("RPUSH", "#{PREFIX}:done", number) }
  end
end

def expect(step, actual, expected)
  abort "#{step}: expected #{expected.inspect}, got #{actual.inspect}" unless actual == expected
end

worker = fork do
  require "sidekiq/cli"
  cli = Sidekiq::CLI.instance
  cli.parse(["--require", File.expand_path(__FILE__), "--queue", PREFIX, "--concurrency", "2"])
  $stdout.reopen($stderr)
  cli.run
end

begin
  20.times { |number| Job.perform_async(number) }
  Sidekiq.redis do |r|
    done = Array.new(20) do
      job = r.blocking_call(20, "BLPOP", "#{PREFIX}:done", 15)
      abort "a job was not run within 15 seconds" unless job
      Integer(job[1])
    end
    expect("jobs run", done.sort, (0...20).to_a)
    expect("jobs left", r.call("LLEN", "queue:#{PREFIX}"), 0)
    r.call("SREM", "queues", PREFIX)
  end
ensure
  Process.kill("TERM", worker)
  Process.wait(worker)
end
expect("exit status of the worker", $?.exitstatus, 0)
puts "ok sidekiq #{Sidekiq::VERSION}"
