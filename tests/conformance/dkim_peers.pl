#!/usr/bin/perl
# Mail::DKIM as a judge: reads paths of messages on standard input, answers with
# the result of each first signature.  The DNS server is 127.0.0.1, port ARGV[0].
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

$| = 1;
$Mail::DKIM::DNS::RESOLVER = Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $ARGV[0], recurse => 1);
while (my $path = <STDIN>) {
	chomp $path;
	my $result = eval {
		open(my $in, '<:raw', $path) or die "$path: $!";
		local $/;
		my $dkim = Mail::DKIM::Verifier->new();
		$dkim->PRINT(<$in>);
		$dkim->CLOSE;
		my ($signature) = $dkim->signatures;
		$signature ? $signature->result : 'none';
	};
	print defined $result ? "$result\n" : "died\n";
}
